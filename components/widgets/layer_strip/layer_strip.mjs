// The strip as hands and keys use it: select, drag, drop, and ask Python for edits.
import { listen, send } from '../layer_events.mjs';
import { plural } from '../text.mjs';
import { createDrawing } from './drawing.mjs';
import { EditQueue } from './edit_queue.mjs';
import { createPresetMenu } from './preset_menu.mjs';
import {
  commonInit, completed, contains, counterpart, fitted, layerCount, range, staysPut, summary,
} from './selection.mjs';

const KEYS = { Delete: 'drop', Backspace: 'drop', d: 'repeat', r: 'restore', v: 'reverse' };
const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9, PageUp: -10, PageDown: 10 };
const STRIPS = ['base', 'patient'];
const DRAG = 6; // pixels that a pointer moves before a press becomes a drag

export function mount({ element, trigger, props, watch }) {
  const bar = element.querySelector('.strip-bar');
  const planBox = element.querySelector('.strip-plan input');
  const initBox = element.querySelector('.strip-init select');
  const errorLine = element.querySelector('.strip-error');
  const live = element.querySelector('.strip-live');
  const info = element.querySelector('.strip-info');
  const drawing = createDrawing(element);
  const { rows } = drawing;

  let view = null;
  let chosen = null; // {strip, start, end}
  let anchor = 0;
  const cursor = { base: 0, patient: 0 };
  let drag = null;
  let sentText = null; // the plan that was typed and not answered yet
  let sentSelection = ''; // what the figures know

  const queue = new EditQueue({
    complete: (request) => (view ? completed(request, chosen, view) : null),
    send: (request) => trigger('edit', { ...request, revision: view.revision }),
    giveUp: () => complain('The app does not answer. Check the connection, then reload the page.'),
  });
  const ask = (op, details = {}) => view && queue.ask({ op, ...details });
  const menu = createPresetMenu(element, {
    presets: () => view?.presets,
    apply: (name, values) => ask('preset', { name, values }),
    tryOut(presets) {
      ask('try', { presets });
      queue.selectionChanged(); // so that the answer leaves the selection alone
    },
  });

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
      queue.clear();
      menu.close();
    }
    view = next;
    queue.answered();
    drawing.draw(view);
    // What was selected after this edit was asked for is kept, as far as it is still there.
    if (!sameBase || !queue.selectionIsNewer) choose(view.selection);
    else if (!drag) choose(fitted(chosen, view));
    if (document.activeElement !== planBox || planBox.value === sentText) planBox.value = view.text;
    sentText = null;
    planBox.title = view.text.length > 30 ? view.text : planBox.dataset.hint;
    complain(view.error);
    menu.showSizes(view.sizes || {});
    for (const strip of STRIPS) {
      const label = element.querySelector(`[data-of=${strip}] span`);
      label.textContent = plural(layerCount(view, strip), 'layer');
    }
    live.textContent = view.error || view.message;
    queue.advance();
  }

  // ---------------------------------------------------------------- selection

  function choose(next) {
    chosen = next && next.start < next.end ? { ...next } : null;
    for (const strip of STRIPS) {
      cursor[strip] = Math.max(0, Math.min(cursor[strip], layerCount(view, strip) - 1));
    }
    if (chosen) {
      anchor = chosen.start;
      cursor[chosen.strip] = chosen.end - 1;
      const other = rows[chosen.strip === 'base' ? 'patient' : 'base'];
      if (document.activeElement === other) rows[chosen.strip].focus({ preventScroll: true });
    }
    paint();
  }

  function select(strip, from, to) {
    queue.selectionChanged();
    chosen = range(strip, from, to);
    anchor = from;
    cursor[strip] = to;
    paint();
  }

  function paint() {
    drawing.paintSelection(chosen, cursor);
    sendSelection();
    info.textContent = summary(chosen, view);
    for (const button of bar.querySelectorAll('[data-op]')) {
      const { op } = button.dataset;
      button.disabled = op === 'undo' ? !view.undo : op === 'redo' ? !view.redo : !chosen;
    }
    bar.querySelector('[data-select=none]').disabled = !chosen;
    initBox.disabled = !chosen;
    showInit();
  }

  // Empty where the menu does not list it.
  function showInit() {
    const init = commonInit(chosen, view);
    initBox.value = [...initBox.options].some((option) => option.value === init) ? init : '';
  }

  function selectAll(strip) {
    select(strip, 0, layerCount(view, strip) - 1);
    announce();
  }

  function selectNone() {
    queue.selectionChanged();
    choose(null);
    announce();
  }

  function announce() {
    live.textContent = chosen ? `${chosen.strip}: ${summary(chosen, view)}` : 'Nothing selected';
  }

  // ---------------------------------------------------------------- the figures' selection

  function sendSelection(again = false) {
    const now = JSON.stringify(chosen);
    if (now === sentSelection && !again) return;
    sentSelection = now;
    send('select', chosen, 'strip');
  }

  listen('hover', element, (detail) => {
    if (!view || detail?.from === 'strip') return;
    drawing.light(detail ? view.patient[detail.start]?.source : undefined);
  });

  listen('select', element, (detail) => {
    if (!view || !detail || detail.from === 'strip') return;
    if (detail.end > layerCount(view, detail.strip)) return; // a figure of an older plan
    select(detail.strip, detail.start, detail.end - 1);
    announce();
  });

  listen('ask', element, () => view && sendSelection(true));

  // ---------------------------------------------------------------- pointer

  function stripAt(event) {
    return STRIPS.find((strip) => {
      const box = rows[strip].getBoundingClientRect();
      return event.clientY >= box.top - 12 && event.clientY <= box.bottom + 12;
    });
  }

  function beginDrag(event, strip) {
    if (!view || event.button || !event.target.closest('.layer')) return;
    rows[strip].focus({ preventScroll: true });
    rows[strip].setPointerCapture(event.pointerId);
    const { index } = drawing.placeUnder(event, strip);
    drag = { kind: 'select', index, x: event.clientX, y: event.clientY, before: chosen, to: null };
    if (event.shiftKey && chosen?.strip === strip) select(strip, anchor, index);
    else if (contains(chosen, strip, index)) drag.kind = 'hold';
    else select(strip, index, index);
    event.preventDefault();
  }

  function moveDrag(event, strip) {
    if (!drag) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (drag.kind === 'hold' && Math.hypot(dx, dy) > DRAG) drag.kind = 'carry';
    if (drag.kind === 'select') {
      const { index } = drawing.placeUnder(event, strip);
      if (index !== cursor[strip]) select(strip, anchor, index);
    }
    if (drag.kind === 'carry') {
      const onto = stripAt(event);
      const allowed = onto === 'patient' || (strip === 'patient' && !onto);
      drag.to = allowed ? drawing.placeUnder(event, 'patient').between : null;
      drawing.paintCaret(drag.to);
      drawing.carryFrame(dx, strip === 'base' ? dy : 0);
    }
  }

  function endDrag(strip) {
    if (!drag) return;
    const { kind, index, to } = drag;
    letGo();
    if (kind === 'hold') select(strip, index, index);
    if (kind !== 'carry') announce();
    else if (to !== null && !staysPut(chosen, to)) {
      ask(strip === 'base' ? 'insert' : 'move', { to });
    }
  }

  function letGo() {
    drag = null;
    drawing.paintCaret(null);
    drawing.carryFrame();
  }

  function cancelDrag() {
    if (!drag) return;
    const { before } = drag;
    letGo();
    choose(before);
  }

  for (const strip of STRIPS) {
    const row = rows[strip];
    row.addEventListener('pointerdown', (event) => beginDrag(event, strip));
    row.addEventListener('pointermove', (event) => moveDrag(event, strip));
    row.addEventListener('pointerup', () => endDrag(strip));
    row.addEventListener('pointercancel', cancelDrag);
    row.addEventListener('focus', () => view && paint());
    row.addEventListener('pointerover', (event) => {
      const layer = event.target.closest('.layer');
      drawing.light(layer?.dataset.source);
      const start = layer && layer.getAttribute('aria-posinset') - 1;
      send('hover', layer && { strip, start, end: start + 1 }, 'strip');
    });
    row.addEventListener('pointerleave', () => {
      drawing.light();
      send('hover', null, 'strip');
    });
  }

  // ---------------------------------------------------------------- keys

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
      if (menu.isOpen) menu.close();
      else if (drag) cancelDrag();
      else selectNone();
    } else if (KEYS[key]) ask(KEYS[key]);
    else if (inRow && key in STEPS) {
      const to = Math.max(0, Math.min(layerCount(view, strip) - 1, cursor[strip] + STEPS[key]));
      select(strip, event.shiftKey && chosen?.strip === strip ? anchor : to, to);
      announce();
    } else if (inRow && (key === 'ArrowUp' || key === 'ArrowDown')) {
      cross(strip, key === 'ArrowUp' ? 'base' : 'patient');
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // From a layer in one strip to the same layer in the other.
  function cross(from, to) {
    if (from === to) return;
    const place = counterpart(view, from, cursor[from]);
    rows[to].focus({ preventScroll: true });
    select(to, place, place);
    announce();
  }

  element.querySelector('.strip').addEventListener('keydown', press);

  // ---------------------------------------------------------------- buttons and notation

  bar.addEventListener('click', (event) => {
    const button = event.target.closest('[data-op], [data-select]');
    if (!button || button.disabled || !view) return;
    if (button.dataset.op) ask(button.dataset.op);
    else if (button.dataset.select === 'all') selectAll(chosen ? chosen.strip : 'patient');
    else selectNone();
    rows[chosen ? chosen.strip : 'patient'].focus({ preventScroll: true });
  });

  initBox.addEventListener('change', () => {
    ask('initialise', { text: initBox.value });
    showInit(); // until the answer is here
  });

  planBox.dataset.hint = planBox.title;

  function write() {
    if (!view || planBox.value === view.text || planBox.value === sentText) return;
    sentText = planBox.value;
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

  new ResizeObserver(drawing.resize).observe(element.querySelector('.strip-scroll'));
  watch('value', render);
  render();
}
