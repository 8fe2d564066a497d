// Draws a figure in place with plotly.js, follows the page's colours, and hands out its numbers.
// Knows nothing of layers; linking is in the file that follows.

const figure = element.querySelector('.plot');
const area = element.querySelector('.plot-area');
const listeners = []; // what to do once the area is drawn for the first time

// One library for all pictures of the page, fetched when the first is drawn.
function library() {
  window.plotlyLibrary ??= new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = props.value.plotly;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error('plotly.js could not be loaded'));
    document.head.append(script);
  });
  return window.plotlyLibrary;
}

function ink() {
  const style = getComputedStyle(element);
  const get = (name) => style.getPropertyValue(name).trim();
  return {
    text: get('--body-text-color'),
    faint: get('--body-text-color-subdued'),
    line: get('--border-color-primary'),
    accent: get('--color-accent'),
    panel: get('--block-background-fill'),
    font: style.fontFamily,
  };
}

// Colours that a figure leaves to the page are written as $text, $faint, $line, $accent, $panel.
function coloured(value, colours) {
  if (typeof value === 'string') return value[0] === '$' ? colours[value.slice(1)] || value : value;
  if (Array.isArray(value)) return typeof value[0] === 'number' ? value : value.map((x) => coloured(x, colours));
  if (!value || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, colours)]));
}

function layoutFor(value, colours) {
  const size = innerWidth >= 1700 ? 15 : innerWidth < 640 ? 12 : 13;
  const axis = { gridcolor: colours.line, zerolinecolor: colours.line, linecolor: colours.line, automargin: true };
  const layout = {
    autosize: true,
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: colours.font, size, color: colours.text },
    margin: { l: 8, r: 8, t: 8, b: 8 },
    hoverlabel: { bgcolor: colours.panel, bordercolor: colours.faint, font: { color: colours.text, size } },
    dragmode: false,
    uirevision: 'kept',
    ...coloured(value.layout, colours),
  };
  for (const key of Object.keys(layout)) {
    if (/^[xy]axis\d*$/.test(key)) layout[key] = { ...axis, fixedrange: true, ...layout[key] };
  }
  if (area.clientWidth < 480) delete layout.annotations; // they would lie on one another
  const ticks = layout.xaxis?.tickvals;
  const every = ticks ? Math.ceil((ticks.length * 2.2 * size) / area.clientWidth) : 1;
  if (every > 1) {
    layout.xaxis.tickvals = ticks.filter((_, i) => i % every === 0);
    layout.xaxis.ticktext = layout.xaxis.ticktext.filter((_, i) => i % every === 0);
  }
  return layout;
}

function clean(node) {
  while (node.firstChild) node.firstChild.remove();
}

function fillTable(table) {
  const box = element.querySelector('.plot-scroll');
  const body = element.querySelector('.plot-table');
  box.hidden = !table;
  clean(body);
  if (!table) return;
  for (const [i, row] of [table.columns, ...table.rows].entries()) {
    const line = body.insertRow();
    row.forEach((text, j) => {
      const cell = document.createElement(i === 0 || j === 0 ? 'th' : 'td');
      if (cell.tagName === 'TH') cell.scope = i === 0 ? 'col' : 'row';
      cell.textContent = text;
      line.append(cell);
    });
  }
}

let drawing = 0;

async function draw() {
  const value = props.value;
  figure.classList.toggle('empty', !value || !value.data);
  if (!value || !value.data) return;
  const turn = (drawing += 1);
  element.querySelector('.plot-title').textContent = value.title;
  element.querySelector('.plot-hint').textContent = value.hint;
  area.setAttribute('aria-label', `${value.title}. ${value.hint}`);
  fillTable(value.table);
  const Plotly = await library();
  if (turn !== drawing) return; // a newer figure is on its way
  const colours = ink();
  const config = { responsive: false, displayModeBar: false, doubleClick: false, scrollZoom: false };
  const first = !area.data;
  await Plotly.react(area, coloured(value.data, colours), layoutFor(value, colours), config);
  if (first) for (const listen of listeners) listen(Plotly);
  area.dataset.drawn = turn;
  area.dispatchEvent(new Event('drawn'));
}

// ---------------------------------------------------------------- numbers and pictures to keep

function table(value) {
  const title = (axis, or) => value.layout[axis]?.title?.text || or;
  const x = title('xaxis', 'x');
  const y = title('yaxis', 'y');
  const rows = [];
  for (const trace of value.data) {
    if (trace.meta === 'decoration') continue;
    const name = trace.name || value.title;
    if (trace.z) {
      if (!rows.length) rows.push([x, y, name, 'count']);
      trace.z.forEach((line, i) => line.forEach((z, j) => {
        rows.push([trace.x[j], trace.y[i], z, trace.customdata?.[i]?.[j] ?? '']);
      }));
    } else {
      if (!rows.length) rows.push(['series', x, y]);
      trace.x.forEach((at, i) => rows.push([name, at, trace.y[i]]));
    }
  }
  return rows;
}

function csv(rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? '' : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(',')).join('\r\n') + '\r\n';
}

function keep(url, name) {
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
}

element.querySelector('.plot-save').addEventListener('click', async (event) => {
  const kind = event.target.closest('[data-as]')?.dataset.as;
  const value = props.value;
  if (!kind || !value?.data) return;
  const name = value.title.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '') || 'picture';
  if (kind === 'csv') {
    const url = URL.createObjectURL(new Blob([csv(table(value))], { type: 'text/csv' }));
    keep(url, `${name}.csv`);
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    return;
  }
  const Plotly = await library();
  const { clientWidth: width, clientHeight: height } = area;
  const opaque = { ...area.layout, paper_bgcolor: ink().panel };
  const url = await Plotly.toImage({ data: area.data, layout: opaque }, { format: kind, width, height, scale: 2 });
  keep(url, `${name}.${kind}`);
});

// ---------------------------------------------------------------- the page changes around it

let dark = document.body.classList.contains('dark');
new MutationObserver(() => {
  const now = document.body.classList.contains('dark');
  if (now !== dark) {
    dark = now;
    draw();
  }
}).observe(document.body, { attributes: true, attributeFilter: ['class'] });

new ResizeObserver(() => {
  if (area.data && area.clientWidth) window.Plotly.Plots.resize(area);
}).observe(area);

watch('value', draw);
