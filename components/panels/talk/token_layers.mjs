// What each layer is worth to the tokens of a text: which ones matter most, in words.
import { probabilityText, signed } from '../../widgets/text.mjs';

const TOP = 3;
const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -1e9, End: 1e9 };

// The value's `layers`, which is text: {limit, sides: {base: {pieces, nll, costs, sources}, …}}.
export function layersOf(value) {
  return value?.layers ? JSON.parse(value.layers) : null;
}

// The costs of one token by layer, in running order.
export function costsOf({ costs }, index) {
  return costs.map((row) => row[index]);
}

// The layers that matter most, [{layer, position, cost}], the costliest first. null stands for a
// cost that is not finite, or that couldn't be measured.
export function mostNeeded({ costs, sources }, index, count = TOP) {
  return costsOf({ costs }, index)
    .map((cost, position) => ({ cost, position, layer: sources[position] }))
    .filter(({ cost }) => cost !== null)
    .toSorted((a, b) => b.cost - a.cost)
    .slice(0, count);
}

// A token that can be seen, whatever it consists of.
export function shownToken(text) {
  return text.trim() || text.replaceAll('\n', '⏎').replaceAll(' ', '␣');
}

export function tokenFacts(side, index) {
  const most = mostNeeded(side, index).map(({ layer, position, cost }) => {
    const place = layer === position ? '' : ` at ${position}`;
    return `${layer}${place} (${signed(cost)})`;
  });
  const name = `“${shownToken(side.pieces[index])}”, ${probabilityText(side.nll[index])}`;
  return `${name}. Layers that it needs most, in nats: ${most.join(', ') || 'not measured'}.`;
}

// Where a key leads from a token of `count`; null for other keys.
export function stepped(key, index, count) {
  if (!(key in STEPS)) return null;
  return Math.max(0, Math.min(count - 1, index + STEPS[key]));
}

// The token to begin with: the first one in `place`, [start, end) in the text, else the first.
export function firstToken(pieces, place) {
  const start = place ? place[0] : 0;
  let at = 0;
  const found = pieces.findIndex((piece) => {
    at += piece.length;
    return at > start;
  });
  return Math.max(0, found);
}
