// Layers in words, for tooltips, badges and screen readers.

function kindOf(view, source) {
  return view.kinds[source] ? `, ${view.kinds[source]}` : '';
}

// A layer of the base, and where the patient runs it: `positions`.
export function describeBase(view, source, positions) {
  let where = 'dropped';
  if (positions.length === 1) where = `at position ${positions[0]} of the patient`;
  if (positions.length > 1) {
    where = `${positions.length} times in the patient, at positions ${positions.join(', ')}`;
  }
  return `Layer ${source}${kindOf(view, source)}: ${where}`;
}

export function describePatient(view, layer, position) {
  const copy = layer.copy > 1 ? `, repeat ${layer.copy - 1}` : '';
  const init = layer.init ? `, initialised as ${layer.init.replace('=', ' ')}` : '';
  return `Position ${position}: layer ${layer.source}${kindOf(view, layer.source)}${copy}${init}`;
}

// An initialisation short enough for a tile.
export function initBadge(init) {
  if (init.startsWith('scale=')) return `×${Number(init.slice(6))}`;
  return { identity: '= 0', random: 'rnd', average: 'avg' }[init] || init;
}
