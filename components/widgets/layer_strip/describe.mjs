// Layers in words, for tooltips, badges and screen readers.
import { integer, signed } from '../text.mjs';

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
  const cost = describeCost(view, source);
  return `Layer ${source}${kindOf(view, source)}: ${where}${cost && `; ${cost}`}`;
}

// What dropping a layer costs, where that is known.
export function describeCost(view, source) {
  const cost = view.importance?.costs?.[source] ?? null;
  const nats = cost === null ? '' : `${Math.abs(cost).toFixed(2)} nats per token`;
  if (view.importance?.breaking.includes(source)) {
    return `without it the model breaks${nats && ` (+${nats})`}`;
  }
  if (cost === null) return '';
  return cost < 0 ? `dropping it alone gains ${nats}` : `dropping it alone costs ${nats}`;
}

// What a layer is worth to a token that is selected in Talk; a cost that is not finite is null.
export function describeNeed({ name }, cost) {
  const nats = cost === null ? 'not finite' : `${signed(cost)} nats`;
  return `without it “${name}”: ${nats}`;
}

// The plates before and after the layers, as [{key, label, text}].
export function describeEnds({ outside, per_layer_tables: tables }) {
  const size = (key) => `${integer(outside[key])} parameters`;
  const more = [];
  if (tables) more.push(`${integer(tables)} more for each layer`);
  if (outside.towers) more.push(`vision and audio towers: ${size('towers')}`);
  if (outside.other) more.push(`other: ${size('other')}`);
  const embedding = outside.embedding ? size('embedding') : 'no parameters of its own';
  return [
    { key: 'embedding', label: 'emb', text: ['Embedding: ' + embedding, ...more].join('; ') },
    {
      key: 'norm', label: 'norm',
      text: outside.norms ? `Final norm: ${size('norms')}` : 'Final norm: no parameters',
    },
    {
      key: 'head', label: 'head',
      text: outside.head ? `Head: ${size('head')}` : 'Head: uses the weights of the embedding',
    },
  ];
}

export function describePatient(view, layer, position) {
  const copy = layer.copy > 1 ? `, repeat ${layer.copy - 1}` : '';
  const init = layer.init ? `, initialised as ${layer.init.replace('=', ' ')}` : '';
  return `Position ${position}: layer ${layer.source}${kindOf(view, layer.source)}${copy}${init}`;
}

// Whether a repair fitted the layer.
export function isFitted(init) {
  return ['lstsq', 'refit'].includes(init);
}

// An initialisation short enough for a tile.
export function initBadge(init) {
  if (init.startsWith('scale=')) return `×${Number(init.slice(6))}`;
  return {
    identity: '= 0', 'no-attention': '−attn', 'no-mlp': '−mlp',
    random: 'rnd', average: 'avg', lstsq: 'fit', refit: 'fit',
  }[init] || init;
}
