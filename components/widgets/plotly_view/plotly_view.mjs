// Draws a figure in place with plotly.js, follows the page's colours, hands out its numbers, and
// marks the layers that are hovered or selected on the strip.
import { download, downloadText, make } from '../dom.mjs';
import { listen, send } from '../layer_events.mjs';
import { currentAddress, followAddress } from '../page_address.mjs';
import { markOutdated } from '../page_plan.mjs';
import { csv } from '../text.mjs';
import { fileName, legible, rows, thinned, transposed, withColours } from './figure_data.mjs';
import { columnsOf, frames, tokenColumn } from './linked_layers.mjs';

const LOADED = 'plotly-loaded'; // told to figures that wait because it could not be loaded
const REST = 60; // milliseconds until Python is told of a selection

// One library for all figures of the page, fetched when the first is drawn.
function library(address) {
  window.plotlyLibrary ??= new Promise((resolve, reject) => {
    const script = make('script');
    script.src = address;
    script.addEventListener('load', () => {
      resolve(window.Plotly);
      window.dispatchEvent(new Event(LOADED));
    });
    script.addEventListener('error', () => {
      window.plotlyLibrary = null; // the next figure tries again
      script.remove();
      reject(new Error('plotly.js could not be loaded'));
    });
    document.head.append(script);
  });
  return window.plotlyLibrary;
}

function pageColours(element) {
  const style = getComputedStyle(element);
  const get = (name) => style.getPropertyValue(name).trim();
  return {
    text: get('--body-text-color'),
    faint: get('--body-text-color-subdued'),
    line: get('--border-color-primary'),
    accent: get('--color-accent'),
    panel: get('--block-background-fill'),
    hovered: get('--ls-figure-hovered'),
    selected: get('--ls-figure-selected'),
    font: style.fontFamily,
  };
}

function layoutFor(value, colours, width) {
  const size = innerWidth >= 1700 ? 15 : innerWidth < 640 ? 12 : 13;
  const { text, faint, line, panel, font } = colours;
  const layout = {
    autosize: true,
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: font, size, color: text },
    margin: { l: 8, r: 8, t: 8, b: 8 },
    hoverlabel: { bgcolor: panel, bordercolor: faint, font: { color: text, size } },
    dragmode: false,
    uirevision: 'kept',
    ...withColours(value.layout, colours),
  };
  const axis = {
    gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, fixedrange: true,
  };
  for (const key of Object.keys(layout)) {
    if (/^[xy]axis\d*$/.test(key)) layout[key] = { ...axis, ...layout[key] };
  }
  if (width < 480) delete layout.annotations; // they would lie on one another
  if (layout.xaxis) layout.xaxis = thinned(layout.xaxis, width, size);
  return layout;
}

function fillTable(element, table) {
  const room = element.querySelector('.plot-scroll');
  room.hidden = !table;
  const fill = ({ columns, rows: lines }) => {
    room.firstElementChild.replaceChildren(...[columns, ...lines].map((row, i) => {
      const line = make('tr');
      line.append(...row.map((text, j) => {
        const cell = make(i === 0 || j === 0 ? 'th' : 'td', '', text);
        if (cell.tagName === 'TH') cell.scope = i === 0 ? 'col' : 'row';
        return cell;
      }));
      return line;
    }));
  };
  if (!table) return;
  fill(table);
  if (room.scrollWidth > room.clientWidth) fill(transposed(table));
}

function isDark() {
  return document.body.classList.contains('dark');
}

// The figure in `props.value`, which is text: each event of the page has Gradio copy all values, number
// by number but for text.
function reader(props) {
  let text;
  let figure = null;
  return () => {
    if (text !== props.value?.json) {
      text = props.value?.json;
      figure = text ? JSON.parse(text) : null;
    }
    return figure;
  };
}

export function mount({ element, trigger, props, watch }) {
  const figure = element.querySelector('.plot');
  const area = element.querySelector('.plot-area');
  const figureOf = reader(props);
  const marks = { select: null, hover: null, token: null };
  const failed = element.querySelector('.plot-failed');
  const drawOutdated = markOutdated({
    element,
    board: figure,
    line: element.querySelector('.outdated'),
    made: () => figureOf()?.of,
  });
  let drawing = 0;
  let drawnWidth = 0; // that it was drawn for: none on a tab that was hidden
  let marking = 0;
  let emitting = 0;

  // The library, or nothing and a message if it can't be loaded.
  async function loaded(address) {
    try {
      const Plotly = await library(address);
      failed.hidden = true;
      return Plotly;
    } catch {
      failed.textContent = 'The figure could not be loaded. Reload the page.';
      failed.hidden = false;
      window.addEventListener(LOADED, draw, { once: true });
      return null;
    }
  }

  async function draw() {
    const value = figureOf();
    figure.classList.toggle('empty', !value || !value.data);
    drawOutdated();
    if (!value || !value.data) return;
    const turn = (drawing += 1);
    element.querySelector('.plot-title').textContent = value.title;
    element.querySelector('.plot-hint').textContent = value.hint;
    area.setAttribute('aria-label', `${value.title}. ${value.hint}`);
    fillTable(element, value.table);
    const Plotly = await loaded(value.plotly);
    if (!Plotly) return;
    if (turn !== drawing) return; // a newer figure is on its way
    const colours = pageColours(element);
    drawnWidth = area.clientWidth;
    const layout = layoutFor(value, colours, drawnWidth);
    const config = {
      responsive: false, displayModeBar: false, doubleClick: false, scrollZoom: false,
    };
    const first = !area.data;
    referAnew();
    const data = legible(withColours(value.data, colours), drawnWidth);
    await Plotly.react(area, data, layout, config);
    if (first) listenToFigure();
    area.dataset.drawn = turn;
    mark();
  }

  // plotly.js puts the page's address before its references to colour bars and clip paths: once that
  // has changed they would lead nowhere.
  function referAnew() {
    const context = Reflect.get(area, '_context') || {};
    const [before, now] = [Reflect.get(context, '_baseUrl'), currentAddress()];
    if (!before || before === now) return;
    Reflect.set(context, '_baseUrl', now);
    for (const name of ['clip-path', 'style']) {
      for (const node of area.querySelectorAll(`[${name}*="url("]`)) {
        node.setAttribute(name, node.getAttribute(name).replaceAll(`${before}#`, `${now}#`));
      }
    }
  }

  // ---------------------------------------------------------------- layers

  function mark() {
    if (!area.data || !figureOf()?.link || marking) return;
    marking = requestAnimationFrame(() => {
      marking = 0;
      const value = figureOf();
      if (!value) return;
      const colours = pageColours(element);
      const { text } = value.link;
      const selected = text ? tokenColumn(text, marks.token) : columnsOf(value.link, marks.select);
      const hovered = columnsOf(value.link, marks.hover);
      area.dataset.selected = selected.join(' ');
      area.dataset.hovered = hovered.join(' ');
      window.Plotly.relayout(area, {
        shapes: [
          ...withColours(value.layout.shapes || [], colours),
          ...frames(hovered, { color: colours.hovered, width: 2, dash: 'dot' }),
          ...frames(selected, { color: colours.selected, width: 3 }),
        ],
      });
    });
  }

  listen('hover', element, (detail) => {
    marks.hover = detail;
    mark();
  });

  listen('select', element, (detail) => {
    const changed = JSON.stringify(marks.select) !== JSON.stringify(detail);
    marks.select = detail;
    mark();
    if (figureOf()?.link?.emits && changed) emit();
  });

  listen('costs', element, (detail) => {
    if (!figureOf()?.link?.text) return;
    marks.token = detail;
    mark();
  });

  // Once a selection has come to rest, and with its time: answers may overtake one another.
  function emit() {
    clearTimeout(emitting);
    emitting = setTimeout(() => {
      trigger('select', { ...marks.select, at: performance.now() });
    }, REST);
  }

  const linked = () => figureOf()?.link;

  function listenToFigure() {
    const layerAt = (event) => {
      const start = Math.round(event.points[0].x);
      return { strip: linked().strip || 'patient', start, end: start + 1 };
    };
    const pointAt = (kind, event) => {
      if (linked()?.text) {
        const { x: index } = event.points[0];
        send('token', { side: linked().text, index, picked: kind === 'select' }, 'figure');
      } else if (linked()) send(kind, layerAt(event), 'figure');
    };
    area.on('plotly_hover', (event) => pointAt('hover', event));
    area.on('plotly_unhover', () => {
      if (linked()) send(linked().text ? 'token' : 'hover', null, 'figure');
    });
    area.on('plotly_click', (event) => {
      pointAt('select', event);
      const index = event.points[0].customdata;
      if (figureOf()?.points && Number.isInteger(index)) trigger('select', { index });
    });
    if (linked()) send('ask', null, 'figure');
  }

  // ---------------------------------------------------------------- numbers and images to keep

  element.querySelector('.plot-save').addEventListener('click', async (event) => {
    const kind = event.target.closest('[data-as]')?.dataset.as;
    const value = figureOf();
    if (!kind || !value?.data) return;
    const name = `${fileName(value.title)}.${kind}`;
    if (kind === 'csv') {
      downloadText(csv(rows(value)), name, 'text/csv');
      return;
    }
    const Plotly = await loaded(value.plotly);
    if (!Plotly) return;
    const { clientWidth: width, clientHeight: height } = area;
    const layout = { ...area.layout, paper_bgcolor: pageColours(element).panel };
    const options = { format: kind, width, height, scale: 2 };
    download(await Plotly.toImage({ data: area.data, layout }, options), name);
  });

  // ---------------------------------------------------------------- the page changes around it

  let dark = isDark();
  new MutationObserver(() => {
    if (isDark() === dark) return;
    dark = isDark();
    draw();
  }).observe(document.body, { attributes: true, attributeFilter: ['class'] });

  let widening = 0;
  new ResizeObserver(() => {
    if (!area.data || !area.clientWidth) return;
    window.Plotly.Plots.resize(area);
    if (area.clientWidth === drawnWidth) return;
    fillTable(element, figureOf()?.table);
    // Which labels there is room for depends on the width: at first there was none.
    clearTimeout(widening);
    widening = setTimeout(draw, drawnWidth ? REST : 0);
  }).observe(area);

  followAddress(element, referAnew);
  watch('value', draw);
  draw();
}
