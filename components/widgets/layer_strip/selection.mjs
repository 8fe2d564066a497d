// What is selected on the strip, as plain values: {strip, start, end} with end left out, or null.
// `view` is what Python sends: {depth, patient: [{source, copy, init}, …]}.
import { integer } from '../text.mjs';

export function layerCount(view, strip) {
  return strip === 'base' ? view.depth : view.patient.length;
}

// From one layer to another, whichever comes first.
export function range(strip, from, to) {
  return { strip, start: Math.min(from, to), end: Math.max(from, to) + 1 };
}

export function contains(chosen, strip, index) {
  return Boolean(chosen) && chosen.strip === strip && index >= chosen.start && index < chosen.end;
}

// A selection as far as the view has its layers.
export function fitted(chosen, view) {
  if (!chosen) return null;
  const end = Math.min(chosen.end, layerCount(view, chosen.strip));
  return chosen.start < end ? { ...chosen, end } : null;
}

export function summary(chosen, view) {
  if (!chosen) return 'Drag over layers to select';
  const size = chosen.end - chosen.start;
  const source = (index) => (chosen.strip === 'base' ? index : view.patient[index].source);
  const [first, last] = [source(chosen.start), source(chosen.end - 1)];
  const layers = size === 1 ? `layer ${first}` : `layers ${first} … ${last}`;
  return `${integer(size)} selected: ${layers}`;
}

// How all of the selected layers are initialised; empty if they differ, or are the base's.
export function commonInit(chosen, view) {
  if (!chosen || chosen.strip !== 'patient') return '';
  const inits = view.patient.slice(chosen.start, chosen.end).map((layer) => layer.init || 'copy');
  return inits.every((init) => init === inits[0]) ? inits[0] : '';
}

// The place in the other strip of the layer at `index`; of the nearest before it if it was dropped.
export function counterpart(view, strip, index) {
  if (strip === 'patient') return view.patient[index].source;
  let place = 0;
  view.patient.forEach((layer, p) => { if (layer.source <= index) place = p; });
  return place;
}

// Where a drag of the selection to between two layers of the patient would change nothing.
export function staysPut(chosen, to) {
  return chosen.strip === 'patient' && to >= chosen.start && to <= chosen.end;
}

// The selection as positions of the patient; null unless the base's layers are one run there.
export function inPatient(chosen, view) {
  if (chosen.strip === 'patient') return chosen;
  const size = chosen.end - chosen.start;
  const start = view.patient.findIndex(({ source }) => source === chosen.start);
  const copies = view.patient.filter(({ source }) => contains(chosen, 'base', source)).length;
  const run = view.patient.slice(start, start + size);
  if (start < 0 || copies !== size || run.length !== size) return null;
  if (!run.every(({ source }, i) => source === chosen.start + i)) return null;
  return { strip: 'patient', start, end: start + size };
}

// Where copies of the base's layers go that are inserted by key: behind the last layer of the patient
// that is not above them. From there they can be moved.
export function insertAt(chosen, view) {
  return 1 + view.patient.findLastIndex(({ source }) => source < chosen.end);
}

// Whether an operation can do anything with the selection; a button for one that can't is disabled.
export function possible(op, chosen, view) {
  if (['undo', 'redo', 'repair'].includes(op)) return Boolean(view[op]);
  if (!chosen) return false;
  if (op === 'restore') return true;
  if (op === 'insert') return chosen.strip === 'base';
  if (op === 'drop') {
    const gone = view.patient.filter(({ source }, p) => (
      contains(chosen, chosen.strip, chosen.strip === 'base' ? source : p)
    )).length;
    return gone > 0 && gone < view.patient.length;
  }
  const run = inPatient(chosen, view);
  if (!run) return false;
  if (op === 'left') return run.start > 0;
  if (op === 'right') return run.end < view.patient.length;
  return op !== 'reverse' || run.end - run.start > 1;
}

// A request with the selection as it is now, as Python takes it; null if there is nothing to do.
export function completed(request, chosen, view) {
  if (['undo', 'redo', 'write', 'preset', 'try'].includes(request.op)) return request;
  if (!chosen) return null;
  if (request.op === 'insert' && request.to === undefined) {
    return chosen.strip === 'base' ? { ...request, ...chosen, to: insertAt(chosen, view) } : null;
  }
  if (request.op !== 'left' && request.op !== 'right') return { ...request, ...chosen };
  const run = inPatient(chosen, view);
  if (!run) return { ...request, ...chosen, op: 'move', to: 0 }; // Python says why it can't
  const to = request.op === 'left' ? run.start - 1 : run.end + 1;
  return to < 0 || to > view.patient.length ? null : { ...request, ...run, op: 'move', to };
}
