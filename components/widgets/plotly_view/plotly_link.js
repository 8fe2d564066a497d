// Ties a picture along depth to the strip: what is hovered or selected there is marked here, and the
// other way round. They speak through two events on the document, so neither knows the other.

let marks = { select: null, hover: null };

function positions(detail) {
  const sources = props.value?.link?.sources;
  if (!sources || !detail) return [];
  const inside = (i) => i >= detail.start && i < detail.end;
  // A picture of the base alone has no place for positions of the patient.
  if (props.value.link.strip === 'base' && detail.strip !== 'base') return [];
  return sources.map((source, p) => p).filter((p) => inside(detail.strip === 'base' ? sources[p] : p));
}

// Frames around runs of positions, over whatever the figure itself draws.
function frames(detail, line) {
  const found = positions(detail);
  const runs = [];
  for (const p of found) {
    if (runs.length && runs.at(-1)[1] === p - 1) runs.at(-1)[1] = p;
    else runs.push([p, p]);
  }
  return runs.map(([from, to]) => ({
    type: 'rect', xref: 'x', yref: 'paper', x0: from - 0.5, x1: to + 0.5, y0: 0, y1: 1, line,
  }));
}

let marking = 0;

function mark() {
  if (!area.data || !props.value?.link || marking) return;
  marking = requestAnimationFrame(() => {
    marking = 0;
    const colours = ink();
    const shapes = [
      ...(coloured(props.value.layout.shapes, colours) || []),
      ...frames(marks.hover, { color: '#ffffff', width: 2, dash: 'dot' }),
      ...frames(marks.select, { color: '#ff9e3d', width: 3 }),
    ];
    area.dataset.selected = positions(marks.select).join(' ');
    area.dataset.hovered = positions(marks.hover).join(' ');
    window.Plotly.relayout(area, { shapes });
  });
}

function say(name, detail) {
  document.dispatchEvent(new CustomEvent(name, { detail: detail && { ...detail, from: 'picture' } }));
}

document.addEventListener('layers-hover', (event) => {
  if (!element.isConnected) return;
  marks.hover = event.detail;
  mark();
});

document.addEventListener('layers-select', (event) => {
  if (!element.isConnected) return;
  const before = JSON.stringify(marks.select);
  marks.select = event.detail;
  mark();
  if (props.value?.link?.emits && before !== JSON.stringify(marks.select)) tell();
});

// Python hears of a selection once it has come to rest, with its time: answers may overtake.
let telling = 0;

function tell() {
  clearTimeout(telling);
  telling = setTimeout(() => trigger('select', { ...marks.select, at: performance.now() }), 60);
}

area.addEventListener('drawn', mark);

listeners.push(() => {
  const at = (event) => Math.round(event.points[0].x);
  const linked = () => props.value?.link;
  const strip = () => linked().strip || 'patient';
  area.on('plotly_hover', (event) => {
    if (linked()) say('layers-hover', { strip: strip(), start: at(event), end: at(event) + 1 });
  });
  area.on('plotly_unhover', () => linked() && say('layers-hover', null));
  area.on('plotly_click', (event) => {
    if (linked()) say('layers-select', { strip: strip(), start: at(event), end: at(event) + 1 });
    const index = event.points[0].customdata;
    if (props.value?.points && Number.isInteger(index)) trigger('select', { index });
  });
  if (linked()) say('layers-ask', null); // what is selected already
});

draw();
