// How the strip looks: where tiles and ribbons stand, their colours, and how they get there.
// Knows the view that Python sends; knows nothing of hands or keys. All text is set as text.

const stage = element.querySelector('.strip-stage');
const ribbons = element.querySelector('.strip-ribbons');
const rows = {
  base: element.querySelector('[data-strip=base]'),
  patient: element.querySelector('[data-strip=patient]'),
};
const calm = matchMedia('(prefers-reduced-motion: reduce)');
const WIDEST = 112; // pixels for a layer: six of them need not fill a projector
const NARROWEST = 7; // below that the stage scrolls sideways
const EDGE = 12; // pixels around the stage, for outlines
const MOVE = 240; // milliseconds

// The drawing as it is and as it will be. Places are counted in layers, so that a change of width
// and a change of order are one movement.
const drawn = { slot: 0, base: [], patient: [], places: new Map(), paths: new Map() };
let frame = 0;

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Depth as colour. Lightness rises with it, so that the order survives colour blindness.
function colour(source, depth) {
  const t = depth > 1 ? source / (depth - 1) : 0;
  return `oklch(${(0.66 + 0.18 * t).toFixed(3)} 0.13 ${(272 - 212 * t).toFixed(1)})`;
}

function plural(count, one) {
  return `${count} ${one}${count === 1 ? '' : 's'}`;
}

function describeBase(view, source, positions) {
  const kind = view.kinds[source] ? `, ${view.kinds[source]}` : '';
  const where = positions.length
    ? positions.length === 1 ? `at position ${positions[0]} of the patient`
      : `${positions.length} times in the patient, at positions ${positions.join(', ')}`
    : 'dropped';
  return `Layer ${source}${kind}: ${where}`;
}

function describePatient(view, layer, position) {
  const kind = view.kinds[layer.source] ? `, ${view.kinds[layer.source]}` : '';
  const copy = layer.copy > 1 ? `, repeat ${layer.copy - 1}` : '';
  const init = layer.init ? `, begins as ${layer.init.replace('=', ' ')}` : '';
  return `Position ${position}: layer ${layer.source}${kind}${copy}${init}`;
}

// What is short enough to stand in a tile.
function initBadge(init) {
  if (init.startsWith('scale=')) return `×${Number(init.slice(6))}`;
  return { identity: '= 0', random: 'rnd', average: 'avg' }[init] || init;
}

function tile(row, position) {
  const node = make('div', 'layer');
  node.setAttribute('role', 'option');
  node.append(make('i', 'layer-badge'), make('span', 'layer-number'));
  node.id = `strip-${row}-${Math.random().toString(36).slice(2)}`;
  rows[row].append(node);
  return node;
}

function dress(node, row, facts, index, count) {
  node.className = `layer ${facts.className}`.trim();
  node.dataset.source = facts.source;
  node.style.setProperty('--layer', facts.colour);
  node.title = facts.text;
  node.setAttribute('aria-label', facts.text);
  node.setAttribute('aria-posinset', index + 1);
  node.setAttribute('aria-setsize', count);
  node.firstChild.textContent = facts.badge;
  node.lastChild.textContent = facts.source;
}

// Tiles are kept by the id of their layer, so that a layer that moves is seen to move.
function drawView(view) {
  const at = Array.from({ length: view.depth }, () => []);
  view.patient.forEach((layer, p) => at[layer.source].push(p));

  while (drawn.base.length > view.depth) drawn.base.pop().remove();
  while (drawn.base.length < view.depth) drawn.base.push(tile('base'));
  drawn.base.forEach((node, i) => dress(node, 'base', {
    source: i,
    colour: colour(i, view.depth),
    text: describeBase(view, i, at[i]),
    className: at[i].length ? '' : 'gone',
    badge: at[i].length > 1 ? `×${at[i].length}` : '',
  }, i, view.depth));

  const before = new Map(drawn.patient.map((node) => [node.dataset.id, node]));
  const start = new Map(drawn.places);
  drawn.patient = view.patient.map((layer, p) => {
    const node = before.get(layer.id) || tile('patient');
    before.delete(layer.id);
    node.dataset.id = layer.id;
    dress(node, 'patient', {
      source: layer.source,
      colour: colour(layer.source, view.depth),
      text: describePatient(view, layer, p),
      className: [layer.copy > 1 ? 'copy' : '', layer.init ? 'begun' : ''].join(' ').trim(),
      badge: layer.init ? initBadge(layer.init) : '',
    }, p, view.patient.length);
    if (rows.patient.children[p] !== node) {
      rows.patient.insertBefore(node, rows.patient.children[p] || null);
    }
    return node;
  });
  for (const node of before.values()) node.remove();
  drawRibbons(view);
  travel(start, view);
}

function drawRibbons(view) {
  const stale = new Map(drawn.paths);
  view.patient.forEach((layer) => {
    let path = drawn.paths.get(layer.id);
    if (!path) {
      path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
      drawn.paths.set(layer.id, path);
    }
    stale.delete(layer.id);
    path.style.fill = colour(layer.source, view.depth);
    path.dataset.source = layer.source;
    path.setAttribute('class', layer.copy > 1 ? 'copy' : '');
    ribbons.append(path);
  });
  for (const [id, path] of stale) {
    path.remove();
    drawn.paths.delete(id);
  }
}

// From where the tiles are to where they belong. New ones come out of their layer in the base.
function travel(start, view) {
  cancelAnimationFrame(frame);
  const target = new Map(view.patient.map((layer, p) => [layer.id, p]));
  const from = new Map(view.patient.map((layer) => [
    layer.id, start.get(layer.id) ?? layer.source,
  ]));
  const slotBefore = drawn.slot;
  const slotAfter = slotFor(view);
  const began = performance.now();
  const jump = calm.matches || !slotBefore || !start.size;

  function step(now) {
    const t = jump ? 1 : Math.min(1, (now - began) / MOVE);
    const eased = 1 - (1 - t) ** 3;
    drawn.slot = slotBefore + (slotAfter - slotBefore) * (jump ? 1 : eased);
    for (const [id, to] of target) {
      const place = from.get(id) + (to - from.get(id)) * eased;
      drawn.places.set(id, place);
    }
    for (const id of drawn.places.keys()) if (!target.has(id)) drawn.places.delete(id);
    place(view);
    if (t < 1) frame = requestAnimationFrame(step);
  }
  step(began);
}

function slotFor(view) {
  const room = element.querySelector('.strip-scroll').clientWidth - 2 * EDGE;
  const most = Math.max(view.depth, view.patient.length);
  return Math.max(NARROWEST, Math.min(WIDEST, room / most));
}

function place(view) {
  const slot = drawn.slot;
  const gap = Math.min(4, slot * 0.14);
  const width = `${slot - gap}px`;
  stage.style.width = `${slot * Math.max(view.depth, view.patient.length)}px`;
  stage.classList.toggle('tight', slot < 30);
  drawn.base.forEach((node, i) => {
    node.style.width = width;
    node.style.transform = `translateX(${i * slot + gap / 2}px)`;
  });
  drawn.patient.forEach((node) => {
    node.style.width = width;
    node.style.transform = `translateX(${drawn.places.get(node.dataset.id) * slot + gap / 2}px)`;
  });
  number(drawn.base, slot);
  number(drawn.patient, slot);
  const height = ribbons.clientHeight;
  const bend = height * 0.5;
  view.patient.forEach((layer) => {
    const a = layer.source * slot + gap / 2;
    const b = drawn.places.get(layer.id) * slot + gap / 2;
    const w = slot - gap;
    drawn.paths.get(layer.id).setAttribute('d',
      `M${a},0 C${a},${bend} ${b},${bend} ${b},${height} H${b + w} ` +
      `C${b + w},${bend} ${a + w},${bend} ${a + w},0 Z`);
  });
  paintFrame();
}

// Numbers where there is room for them: first where the order breaks, then at even distances.
function number(nodes, slot) {
  const need = Math.ceil((slot < 30 ? 20 : 24) / slot);
  const sources = nodes.map((node) => Number(node.dataset.source));
  const shown = new Set();
  const free = (p) => {
    for (let q = p - need + 1; q < p + need; q += 1) if (shown.has(q)) return false;
    return true;
  };
  sources.forEach((source, p) => {
    if ((p === 0 || source !== sources[p - 1] + 1) && free(p)) shown.add(p);
  });
  const every = need === 1 ? 1 : need <= 5 ? 5 : 10;
  sources.forEach((source, p) => {
    if (source % every === 0 && free(p)) shown.add(p);
  });
  nodes.forEach((node, p) => node.classList.toggle('mute', !shown.has(p)));
}

// ---------------------------------------------------------------- selection, caret, light

const outline = make('div', 'strip-frame');
const caret = make('div', 'strip-caret');
let framed = null; // {strip, start, end}

function paintSelection(chosen, cursor) {
  framed = chosen;
  for (const [name, nodes] of [['base', drawn.base], ['patient', drawn.patient]]) {
    const here = chosen && chosen.strip === name;
    nodes.forEach((node, p) => {
      node.setAttribute('aria-selected', Boolean(here && p >= chosen.start && p < chosen.end));
      node.classList.toggle('cursor', p === cursor[name]);
    });
    const active = nodes[cursor[name]];
    if (active) rows[name].setAttribute('aria-activedescendant', active.id);
  }
  paintFrame();
}

function paintFrame() {
  if (!framed) {
    outline.remove();
    return;
  }
  if (outline.parentNode !== rows[framed.strip]) rows[framed.strip].append(outline);
  outline.style.width = `${(framed.end - framed.start) * drawn.slot}px`;
  outline.style.transform = `translateX(${framed.start * drawn.slot}px)`;
}

// Where layers that are being dragged would go; null takes the caret away.
function paintCaret(to) {
  if (to === null) {
    caret.remove();
    return;
  }
  rows.patient.append(caret);
  caret.style.transform = `translateX(${to * drawn.slot}px)`;
}

function light(source) {
  for (const node of [...drawn.base, ...drawn.patient, ...drawn.paths.values()]) {
    node.classList.toggle('lit', source !== undefined && node.dataset.source === source);
  }
}

// The place under a pointer: which layer, and between which two.
function under(event, strip) {
  const x = event.clientX - rows[strip].getBoundingClientRect().left;
  const count = drawn[strip].length;
  return {
    index: Math.max(0, Math.min(count - 1, Math.floor(x / drawn.slot))),
    between: Math.max(0, Math.min(count, Math.round(x / drawn.slot))),
  };
}
