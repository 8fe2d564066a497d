// The strip as hands and keys use it: select, drag, drop, and ask Python for edits.
import { listen, send } from '../layer_events.mjs';
import { watchNewest } from '../newest.mjs';
import { plural } from '../text.mjs';
import { describeBase, describeCost, describePatient } from './describe.mjs';
import { createDetails } from './details.mjs';
import { createDrawing } from './drawing.mjs';
import { EditQueue } from './edit_queue.mjs';
import { isRecipe } from './pasted.mjs';
import { centred, toolbarTop } from './placing.mjs';
import { createPresetMenu } from './preset_menu.mjs';
import {
  commonInit, completed, contains, counterpart, fitted, layerCount, possible, range, staysPut,
  summary,
} from './selection.mjs';
import { isTyping, undoKey } from './undo_keys.mjs';

const ZOOM = { in: 1.5, out: 1 / 1.5 };
const ZOOM_KEYS = { '+': 'in', '=': 'in', '-': 'out' };
const KEYS = {
  Delete: 'drop', Backspace: 'drop', d: 'repeat', i: 'insert', r: 'restore', v: 'reverse',
};
const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9, PageUp: -10, PageDown: 10 };
const STRIPS = ['base', 'patient'];
const DRAG = 6; // pixels that a pointer moves before a press becomes a drag

export function mount({ element, trigger, props, watch }) {
  const panel = element.querySelector('.strip');
  const tools = element.querySelector('.strip-tools');
  const between = element.querySelector('.strip-ribbons');
  const measure = element.querySelector('.strip-measure');
  const planBox = element.querySelector('.strip-plan input');
  const initBox = element.querySelector('.strip-init select');
  const look = element.querySelector('.strip-look');
  const errorLine = element.querySelector('.strip-error');
  const live = element.querySelector('.strip-live');
  const info = element.querySelector('.strip-info');
  const headline = element.querySelector('.strip-headline');
  const emptyLine = element.querySelector('.strip-empty');
  const zoom = element.querySelector('.strip-zoom');
  const insert = element.querySelector('[data-op=insert]');
  const repair = element.querySelector('[data-op=repair]');
  const repairHint = repair.title;
  const drawing = createDrawing(element, () => {
    showZoom();
    floatOver();
  });
  const details = createDetails(element);
  const { rows } = drawing;

  let view = null;
  let chosen = null; // {strip, start, end}
  let anchor = 0;
  const cursor = { base: 0, patient: 0 };
  let drag = null;
  let shownText = ''; // the plan in its box, until something else is typed
  let sentText = null; // the plan that was typed and not answered yet
  let sentSelection = ''; // what the figures know
  let needed = null; // what a token needs: {side, costs, limit, name}

  const queue = new EditQueue({
    complete: (request) => (view ? completed(request, chosen, view) : null),
    send: (request) => trigger('edit', { ...request, revision: view.revision }),
    giveUp: () => complain('The app does not answer. Check the connection, then reload the page.'),
  });
  const ask = (op, more = {}) => view && queue.ask({ op, ...more });
  const menu = createPresetMenu(element, {
    presets: () => view?.presets,
    apply: (name, values) => ask('preset', { name, values }),
    tryOut(presets) {
      ask('try', { presets });
      queue.selectionChanged(); // so that the answer leaves the selection alone
    },
  });

  // `typed` says that what is wrong stands in the plan's box.
  function complain(text, typed = false) {
    errorLine.textContent = text;
    errorLine.hidden = !text;
    planBox.setAttribute('aria-invalid', typed && Boolean(text));
  }

  // ---------------------------------------------------------------- what Python answers

  function render(next) {
    const nothing = !next || !next.patient;
    panel.classList.toggle('empty', nothing);
    panel.classList.toggle('opening', Boolean(nothing && next?.opening));
    emptyLine.textContent = nothing ? next?.opening || next?.note || '' : '';
    if (nothing) return;
    const sameBase = view && view.name === next.name && view.depth === next.depth;
    // More is known of the base; an edit that is under way is still to be answered.
    const samePlan = sameBase && next.order === view.order;
    if (!sameBase) {
      queue.clear();
      menu.close();
    }
    view = next;
    menu.showSizes(view.sizes || {});
    drawing.draw(view, needed);
    showFacts();
    if (samePlan) {
      paint();
      return;
    }
    const edit = queue.answered();
    details.close();
    // What was selected after this edit was asked for is kept, as far as it is still there.
    if (!sameBase || !queue.selectionIsNewer) choose(view.selection);
    else if (!drag) choose(fitted(chosen, view));
    showPlan(edit);
    complain(view.error, view.unread);
    live.textContent = view.error || view.message;
    queue.advance();
  }

  // What is being typed, or waits to be applied, stays as it is.
  function showPlan(edit) {
    if (edit?.op === 'write') sentText = null;
    const answers = edit?.op === 'write' && planBox.value === edit.text;
    const typing = document.activeElement === planBox && planBox.value !== shownText;
    if (answers || !(typing || queue.has('write'))) {
      // Who has selected all of it is about to type something else.
      const all = planBox.selectionStart === 0 && planBox.selectionEnd === planBox.value.length;
      planBox.value = view.text;
      shownText = view.text;
      if (all && view.text && document.activeElement === planBox) planBox.select();
    }
    planBox.title = view.text.length > 30 ? view.text : planBox.dataset.hint;
  }

  function showFacts() {
    for (const row of STRIPS) {
      const label = element.querySelector(`[data-of=${row}] span`);
      label.textContent = plural(layerCount(view, row), 'layer');
    }
    const name = element.querySelector('[data-of=base] i');
    name.textContent = view.name;
    name.title = view.name;
    headline.classList.toggle('done', view.undo || view.redo);
    const { costs, known, measurable, hint = '' } = view.importance || {};
    const label = element.querySelector('.strip-importance-label');
    label.classList.toggle('unknown', !costs);
    label.title = hint;
    const all = !costs || known === view.depth;
    label.querySelector('span').textContent = all ? 'nats if dropped' : `${known} of ${view.depth}`;
    measure.hidden = Boolean(costs) || !measurable;
    element.querySelector('.strip-unmeasured').hidden = !view.importance || costs || measurable;
  }

  function showZoom() {
    const can = drawing.zooms();
    zoom.hidden = !can.offered;
    for (const button of zoom.children) button.disabled = !can[button.dataset.zoom];
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
    details.close();
    chosen = range(strip, from, to);
    anchor = from;
    cursor[strip] = to;
    paint();
  }

  function paint() {
    drawing.paintSelection(chosen, cursor);
    sendSelection();
    showInfo();
    for (const button of panel.querySelectorAll('[data-op]')) {
      button.disabled = !possible(button.dataset.op, chosen, view);
    }
    repair.title = view?.why_no_repair || repairHint;
    panel.querySelector('[data-select=none]').disabled = !chosen;
    initBox.disabled = !possible('initialise', chosen, view);
    insert.hidden = chosen?.strip !== 'base';
    look.hidden = !chosen || chosen.end - chosen.start > 1;
    showInit();
    floatOver();
  }

  function showInfo() {
    const ofToken = needed && !chosen;
    info.textContent = ofToken ? `Colours: needed for “${needed.name}”` : summary(chosen, view);
    info.title = info.textContent;
  }

  // The toolbar stands at the selection, and what is in a layer at the layer.
  function floatOver() {
    const frame = drawing.frameBox();
    tools.hidden = !frame || Boolean(drag);
    if (!frame) return;
    const box = panel.getBoundingClientRect();
    const at = (edge) => edge - box.left;
    const rowsEnd = rows.patient.getBoundingClientRect().bottom - box.top;
    const { top, bottom } = between.getBoundingClientRect();
    if (!tools.hidden) {
      const { width, height } = tools.getBoundingClientRect();
      const room = { top: top - box.top, bottom: bottom - box.top };
      tools.style.left = `${centred(at(frame.left), at(frame.right), width, box.width)}px`;
      tools.style.top = `${toolbarTop(chosen.strip, room, rowsEnd, height)}px`;
    }
    if (details.isOpen) {
      const { width } = details.sheet.getBoundingClientRect();
      details.sheet.style.left = `${centred(at(frame.left), at(frame.right), width, box.width)}px`;
      const under = chosen.strip === 'base' ? bottom - box.top : rowsEnd;
      details.sheet.style.top = `${under + 8}px`;
    }
  }

  // ---------------------------------------------------------------- what is in a layer

  function openDetails() {
    if (!chosen || chosen.end - chosen.start !== 1) return;
    const at = chosen.start;
    const layer = chosen.strip === 'base' ? { source: at } : view.patient[at];
    const where = chosen.strip === 'base'
      ? describeBase(view, at, view.patient.flatMap(({ source }, p) => (source === at ? [p] : [])))
      : [describePatient(view, layer, at), describeCost(view, layer.source)].filter(Boolean).join('; ');
    live.textContent = details.open(view, layer.source, where);
    floatOver();
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
    details.close();
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

  // What each layer is worth to a token that is selected in Talk.
  listen('costs', element, (detail) => {
    needed = detail;
    if (!view) return;
    drawing.showNeed(needed);
    showInfo();
  });

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
      drawing.carry(dx, strip === 'base' ? dy : 0);
      drawing.openGap(drag.to);
    }
    if (drag.kind !== 'hold') drawing.scrollAt(event.clientX);
  }

  function endDrag(strip) {
    if (!drag) return;
    const { kind, index, to, before } = drag;
    letGo();
    if (kind === 'carry') {
      if (to !== null && !staysPut(chosen, to)) ask(strip === 'base' ? 'insert' : 'move', { to });
    } else if (kind === 'hold' && before.end - before.start === 1) {
      if (details.isOpen) details.close();
      else openDetails();
    } else {
      if (kind === 'hold') select(strip, index, index);
      announce();
    }
  }

  function letGo() {
    drag = null;
    drawing.carry();
    drawing.openGap(null);
    floatOver();
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
    if (undoKey(event)) ask(undoKey(event));
    else if (command && key === 'a') selectAll(strip);
    else if (event.altKey && (key === 'ArrowLeft' || key === 'ArrowRight')) {
      ask(key === 'ArrowLeft' ? 'left' : 'right');
    } else if (command || event.altKey) return;
    else if (key === 'Escape') {
      if (menu.isOpen) menu.close();
      else if (details.isOpen) details.close();
      else if (drag) cancelDrag();
      else selectNone();
    } else if (inRow && key === 'Enter') {
      if (!chosen) select(strip, cursor[strip], cursor[strip]);
      openDetails();
    } else if (KEYS[key]) ask(KEYS[key]);
    else if (ZOOM_KEYS[key]) drawing.zoomBy(ZOOM[ZOOM_KEYS[key]]);
    else if (inRow && key in STEPS) {
      const to = Math.max(0, Math.min(layerCount(view, strip) - 1, cursor[strip] + STEPS[key]));
      select(strip, event.shiftKey && chosen?.strip === strip ? anchor : to, to);
      drawing.reveal(to);
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
    drawing.reveal(place);
    announce();
  }

  panel.addEventListener('keydown', press);

  // Undo works wherever nothing is being typed.
  document.addEventListener('keydown', (event) => {
    const op = undoKey(event);
    if (!op || !view || !element.isConnected || event.defaultPrevented) return;
    if (isTyping(event.target) || document.querySelector('dialog[open]')) return;
    ask(op);
    event.preventDefault();
  });

  // ---------------------------------------------------------------- buttons and notation

  look.addEventListener('click', openDetails);
  element.querySelector('.strip-details-close').addEventListener('click', () => {
    details.close();
    if (chosen) rows[chosen.strip].focus({ preventScroll: true });
  });
  measure.addEventListener('click', () => trigger('measure', {}));
  zoom.addEventListener('click', (event) => {
    const way = event.target.dataset.zoom;
    if (way && view) drawing.zoomBy(ZOOM[way]);
  });

  panel.addEventListener('click', (event) => {
    const button = event.target.closest('[data-op], [data-select]');
    if (!button || button.disabled || !view) return;
    if (button.dataset.op === 'repair') {
      document.dispatchEvent(new CustomEvent('repair-ask')); // the Quality tile shows how it goes
      return;
    }
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
    if (!view || planBox.value === sentText) return;
    if (planBox.value === view.text && !view.unread && !queue.has('write')) return;
    sentText = planBox.value;
    ask('write', { text: planBox.value });
  }

  planBox.addEventListener('change', write);
  planBox.addEventListener('input', () => complain('')); // of what stood there before
  planBox.addEventListener('paste', (event) => {
    const text = event.clipboardData?.getData('text/plain') ?? '';
    if (!view || !isRecipe(text)) return;
    event.preventDefault();
    complain('');
    planBox.value = view.text;
    shownText = view.text; // so that the answer takes its place
    trigger('recipe', { text });
  });
  planBox.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') write();
    if (event.key === 'Escape' && view) {
      planBox.value = view.text;
      complain('');
    }
  });

  const scroll = element.querySelector('.strip-scroll');
  scroll.addEventListener('scroll', floatOver);
  new ResizeObserver(drawing.resize).observe(scroll);
  watchNewest({ props, watch }, 'order', render);
}
