// How hands and keys work on the strip: select, drag, drop, and what is asked of Python.
// One edit is under way at a time; what is pressed meanwhile waits and acts on what it brought.

const bar = element.querySelector('.strip-bar');
const planBox = element.querySelector('.strip-plan input');
const beginBox = element.querySelector('.strip-begin select');
const errorLine = element.querySelector('.strip-error');
const live = element.querySelector('.strip-live');
const info = element.querySelector('.strip-info');
const sheet = element.querySelector('.strip-sheet');
const sheetButton = element.querySelector('.strip-presets');
const ANSWER = 20000; // milliseconds after which no answer is expected any more

let view = null;
let chosen = null; // {strip, start, end}
let anchor = 0;
const cursor = { base: 0, patient: 0 };
let drag = null;
let waiting = [];
let underway = 0;
// Which came first: the edit that is under way, or the selection as it is?
let clock = 0;
let askedAt = 0;
let selectedAt = 0;

// ---------------------------------------------------------------- asking Python

function ask(op, more = {}) {
  waiting.push({ op, ...more, at: (clock += 1) });
  send();
}

function send() {
  if (underway || !view) return;
  while (waiting.length) {
    const request = ready(waiting.shift());
    if (!request) continue;
    underway = setTimeout(() => {
      underway = 0;
      waiting = [];
      complain('The app does not answer. Check the connection, then reload the page.');
    }, ANSWER);
    askedAt = request.at;
    trigger('edit', { ...request, revision: view.revision });
    return;
  }
}

// A request in full, with the selection as it is now; null if there is nothing to do.
function ready(request) {
  if (['undo', 'redo', 'write', 'preset'].includes(request.op)) return request;
  if (!chosen) return null;
  const full = { ...request, ...chosen };
  if (full.op === 'left' || full.op === 'right') {
    full.to = full.op === 'left' ? chosen.start - 1 : chosen.end + 1;
    full.op = 'move';
    if (chosen.strip === 'patient' && (full.to < 0 || full.to > view.patient.length)) return null;
  }
  return full;
}

function complain(text) {
  errorLine.textContent = text;
  errorLine.hidden = !text;
  planBox.setAttribute('aria-invalid', Boolean(text));
}

// ---------------------------------------------------------------- what Python answers

function render() {
  const next = props.value;
  const nothing = !next || !next.patient;
  element.querySelector('.strip').classList.toggle('empty', nothing);
  if (nothing) return;
  if (view && next.revision < view.revision) return; // a late answer
  const sameBase = view && view.name === next.name && view.depth === next.depth;
  if (!sameBase) {
    waiting = [];
    closeSheet();
  }
  view = next;
  clearTimeout(underway);
  underway = 0;
  drawView(view);
  // What was selected after this edit was asked for is kept, as far as it is still there.
  if (!sameBase || selectedAt < askedAt) choose(view.selection);
  else if (!drag) choose(chosen && { ...chosen, end: Math.min(chosen.end, count(chosen.strip)) });
  if (document.activeElement !== planBox || planBox.value === asked) planBox.value = view.text;
  asked = null;
  planBox.title = view.text.length > 30 ? view.text : planBox.dataset.hint;
  complain(view.error);
  label('base', plural(view.depth, 'layer'));
  label('patient', plural(view.patient.length, 'layer'));
  live.textContent = view.error || view.said;
  send();
}

function label(strip, text) {
  element.querySelector(`[data-of=${strip}] span`).textContent = text;
}

// ---------------------------------------------------------------- selection

function choose(next) {
  chosen = next && next.start < next.end ? { ...next } : null;
  for (const strip of ['base', 'patient']) {
    cursor[strip] = Math.max(0, Math.min(cursor[strip], count(strip) - 1));
  }
  if (chosen) {
    anchor = chosen.start;
    cursor[chosen.strip] = chosen.end - 1;
    const focused = document.activeElement;
    const other = rows[chosen.strip === 'base' ? 'patient' : 'base'];
    if (focused === other) rows[chosen.strip].focus({ preventScroll: true });
  }
  paint();
}

function count(strip) {
  return strip === 'base' ? view.depth : view.patient.length;
}

function select(strip, from, to) {
  selectedAt = clock += 1;
  chosen = { strip, start: Math.min(from, to), end: Math.max(from, to) + 1 };
  anchor = from;
  cursor[strip] = to;
  paint();
}

function paint() {
  paintSelection(chosen, cursor);
  tellSelection();
  info.textContent = summary();
  for (const button of bar.querySelectorAll('[data-op]')) {
    const op = button.dataset.op;
    button.disabled = op === 'undo' ? !view.undo : op === 'redo' ? !view.redo : !chosen;
  }
  bar.querySelector('[data-select=none]').disabled = !chosen;
  beginBox.disabled = !chosen;
  beginBox.value = howItBegins();
}

// How all of the selected layers begin; empty if they differ or a choice doesn't list it.
function howItBegins() {
  if (!chosen || chosen.strip !== 'patient') return '';
  const inits = view.patient.slice(chosen.start, chosen.end).map((layer) => layer.init || 'copy');
  const listed = [...beginBox.options].some((option) => option.value === inits[0]);
  return listed && inits.every((init) => init === inits[0]) ? inits[0] : '';
}

function summary() {
  if (!chosen) return 'Drag over layers to select';
  const size = chosen.end - chosen.start;
  const names = chosen.strip === 'base' ? [chosen.start, chosen.end - 1]
    : [view.patient[chosen.start].source, view.patient[chosen.end - 1].source];
  const which = size === 1 ? `layer ${names[0]}` : `layers ${names[0]} … ${names[1]}`;
  return `${size} selected: ${which}`;
}

function selectAll(strip) {
  select(strip, 0, count(strip) - 1);
  announce();
}

function selectNone() {
  selectedAt = clock += 1;
  choose(null);
  announce();
}

function announce() {
  live.textContent = chosen ? `${chosen.strip}: ${summary()}` : 'Nothing selected';
}

// ---------------------------------------------------------------- pointer

function stripAt(event) {
  for (const strip of ['base', 'patient']) {
    const box = rows[strip].getBoundingClientRect();
    if (event.clientY >= box.top - 12 && event.clientY <= box.bottom + 12) return strip;
  }
  return null;
}

for (const [strip, row] of Object.entries(rows)) {
  row.addEventListener('pointerdown', (event) => {
    if (!view || event.button || !event.target.closest('.layer')) return;
    row.focus({ preventScroll: true });
    row.setPointerCapture(event.pointerId);
    const { index } = under(event, strip);
    const inside = chosen && chosen.strip === strip && index >= chosen.start && index < chosen.end;
    drag = { strip, index, x: event.clientX, y: event.clientY, kept: chosen, to: null };
    if (event.shiftKey && chosen && chosen.strip === strip) {
      drag.kind = 'select';
      select(strip, anchor, index);
    } else if (inside) {
      drag.kind = 'hold';
    } else {
      drag.kind = 'select';
      select(strip, index, index);
    }
    event.preventDefault();
  });

  row.addEventListener('pointermove', (event) => {
    if (!drag) return;
    if (drag.kind === 'hold') {
      const far = Math.hypot(event.clientX - drag.x, event.clientY - drag.y);
      if (far > 6) drag.kind = 'carry';
    }
    if (drag.kind === 'select') {
      const { index } = under(event, strip);
      if (index !== cursor[strip]) select(strip, anchor, index);
    }
    if (drag.kind === 'carry') {
      const onto = stripAt(event);
      const allowed = onto === 'patient' || (strip === 'patient' && onto === null);
      drag.to = allowed ? under(event, 'patient').between : null;
      paintCaret(drag.to);
      outline.classList.add('carried');
      outline.style.translate =
        `${event.clientX - drag.x}px ${strip === 'base' ? event.clientY - drag.y : 0}px`;
    }
  });

  row.addEventListener('pointerup', () => {
    if (!drag) return;
    const done = drag;
    drop();
    if (done.kind === 'hold') select(strip, done.index, done.index);
    if (done.kind === 'carry' && done.to !== null) {
      if (strip === 'base') ask('insert', { to: done.to });
      else if (done.to < chosen.start || done.to > chosen.end) ask('move', { to: done.to });
    }
    if (done.kind !== 'carry') announce();
  });

  row.addEventListener('pointercancel', cancelDrag);
  row.addEventListener('pointerover', (event) => light(event.target.closest('.layer')?.dataset.source));
  row.addEventListener('pointerleave', () => light());
  row.addEventListener('focus', () => view && paint());
}

function drop() {
  drag = null;
  paintCaret(null);
  outline.classList.remove('carried');
  outline.style.translate = '';
}

function cancelDrag() {
  if (!drag) return;
  const before = drag.kept;
  drop();
  choose(before);
}

// ---------------------------------------------------------------- keys

const KEYS = { Delete: 'drop', Backspace: 'drop', d: 'repeat', r: 'restore', v: 'reverse' };
const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9, PageUp: -10, PageDown: 10 };

function press(event) {
  if (!view || event.target.closest('input, textarea, select')) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const command = event.ctrlKey || event.metaKey;
  const strip = document.activeElement === rows.base ? 'base' : 'patient';
  const inRow = Object.values(rows).includes(document.activeElement);
  if (command && key === 'z') ask(event.shiftKey ? 'redo' : 'undo');
  else if (command && key === 'y') ask('redo');
  else if (command && key === 'a') selectAll(strip);
  else if (event.altKey && (key === 'ArrowLeft' || key === 'ArrowRight')) {
    ask(key === 'ArrowLeft' ? 'left' : 'right');
  } else if (command || event.altKey) return;
  else if (key === 'Escape') {
    if (!sheet.hidden) closeSheet();
    else if (drag) cancelDrag();
    else selectNone();
  } else if (KEYS[key]) ask(KEYS[key]);
  else if (inRow && key in STEPS) {
    const to = Math.max(0, Math.min(count(strip) - 1, cursor[strip] + STEPS[key]));
    const from = event.shiftKey && chosen && chosen.strip === strip ? anchor : to;
    select(strip, from, to);
    announce();
  } else if (inRow && (key === 'ArrowUp' || key === 'ArrowDown')) {
    cross(strip, key === 'ArrowUp' ? 'base' : 'patient');
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

// From a layer in one strip to the same layer in the other, or to the nearest before it.
function cross(from, to) {
  if (from === to) return;
  let place = 0;
  if (to === 'base') place = view.patient[cursor.patient].source;
  else view.patient.forEach((layer, p) => { if (layer.source <= cursor.base) place = p; });
  rows[to].focus({ preventScroll: true });
  select(to, place, place);
  announce();
}

element.querySelector('.strip').addEventListener('keydown', press);

// ---------------------------------------------------------------- buttons, notation, presets

bar.addEventListener('click', (event) => {
  const button = event.target.closest('[data-op], [data-select]');
  if (!button || button.disabled || !view) return;
  if (button.dataset.op) ask(button.dataset.op);
  else if (button.dataset.select === 'all') selectAll(chosen ? chosen.strip : 'patient');
  else selectNone();
  rows[chosen ? chosen.strip : 'patient'].focus({ preventScroll: true });
});

beginBox.addEventListener('change', () => {
  ask('initialise', { text: beginBox.value });
  beginBox.value = howItBegins(); // until the answer is here
});

let asked = null; // the text that was sent and not answered yet
planBox.dataset.hint = planBox.title;

function write() {
  if (!view || planBox.value === view.text || planBox.value === asked) return;
  asked = planBox.value;
  ask('write', { text: planBox.value });
}

planBox.addEventListener('change', write);
planBox.addEventListener('keydown', (event) => {
  if (event.key === 'Enter') write();
  if (event.key === 'Escape' && view) {
    planBox.value = view.text;
    complain('');
  }
});

function openSheet() {
  if (!view) return;
  sheet.replaceChildren(...view.presets.map((preset) => {
    const form = make('form', 'strip-preset');
    form.append(make('b', '', preset.name), make('p', '', preset.hint));
    const fields = make('div', 'strip-fields');
    for (const parameter of preset.parameters) {
      const field = make('label', '', parameter.name);
      field.title = parameter.hint;
      const box = make('input');
      Object.assign(box, { type: 'number', name: parameter.name, value: parameter.value, step: 1 });
      field.append(box);
      fields.append(field);
    }
    fields.append(make('button', '', 'Apply'));
    form.append(fields);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const values = Object.fromEntries(
        [...new FormData(form)].map(([name, value]) => [name, value === '' ? value : Number(value)]),
      );
      ask('preset', { name: preset.name, values });
      closeSheet();
    });
    return form;
  }));
  sheet.hidden = false;
  sheetButton.setAttribute('aria-expanded', 'true');
  sheet.querySelector('input').focus();
}

function closeSheet() {
  if (sheet.hidden) return;
  const inside = sheet.contains(document.activeElement);
  sheet.hidden = true;
  sheetButton.setAttribute('aria-expanded', 'false');
  if (inside) sheetButton.focus();
}

sheetButton.addEventListener('click', () => (sheet.hidden ? openSheet() : closeSheet()));
sheet.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') closeSheet();
  event.stopPropagation();
});
document.addEventListener('pointerdown', (event) => {
  if (!element.querySelector('.strip-menu')?.contains(event.target)) closeSheet();
});

new ResizeObserver(() => {
  if (!view) return;
  drawn.slot = slotFor(view);
  place(view);
}).observe(element.querySelector('.strip-scroll'));

watch('value', render);
render();
