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

// A request with the selection as it is now, as Python takes it; null if there is nothing to do.
export function completed(request, chosen, view) {
  if (['undo', 'redo', 'write', 'preset', 'try'].includes(request.op)) return request;
  if (!chosen) return null;
  if (request.op !== 'left' && request.op !== 'right') return { ...request, ...chosen };
  const to = request.op === 'left' ? chosen.start - 1 : chosen.end + 1;
  const outside = to < 0 || to > view.patient.length;
  if (chosen.strip === 'patient' && outside) return null;
  return { ...request, ...chosen, op: 'move', to };
}
