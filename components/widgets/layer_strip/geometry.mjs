// Where the strip's tiles, numbers and ribbons go, in pixels. A slot is a tile with its gap.

const NARROWEST = 7; // below that the strip scrolls sideways
const FINGER = 28; // the same for fingers: a tile of 24, and its gap
const WIDEST = 84; // that zooming makes it
export const TIGHT = 30; // a slot below that has smaller numbers

export function slotWidth(room, count, fingers = false) {
  return Math.max(fingers ? FINGER : NARROWEST, room / count);
}

// How far a strip with slots of that width can be zoomed.
export function mostZoom(slot) {
  return Math.max(1, WIDEST / slot);
}

export function gapOf(slot) {
  return Math.min(4, slot * 0.14);
}

// The layer under x, and the two layers that x is between, as the place of the second.
export function placeAt(x, slot, count) {
  return {
    index: Math.max(0, Math.min(count - 1, Math.floor(x / slot))),
    between: Math.max(0, Math.min(count, Math.round(x / slot))),
  };
}

// An SVG path from a tile at `a` above to one at `b` below, both `width` wide.
export function ribbonPath(a, b, width, height) {
  const bend = height / 2;
  return `M${a},0 C${a},${bend} ${b},${bend} ${b},${height} H${b + width} `
    + `C${b + width},${bend} ${a + width},${bend} ${a + width},0 Z`;
}

// The places whose number is shown: first where the order breaks, then at even distances.
export function numbered(sources, slot) {
  const need = Math.ceil((slot < TIGHT ? 20 : 24) / slot); // slots that a number takes
  const every = need === 1 ? 1 : need <= 5 ? 5 : 10;
  const shown = new Set();
  const show = (p) => {
    for (let q = p - need + 1; q < p + need; q += 1) if (shown.has(q)) return;
    shown.add(p);
  };
  sources.forEach((source, p) => { if (p === 0 || source !== sources[p - 1] + 1) show(p); });
  sources.forEach((source, p) => { if (source % every === 0) show(p); });
  return shown;
}

// The height of a bar, from 0 to 1: close to proportional up to `HALF` nats per token, then
// logarithmic, so that small costs stay visible beside those of layers that nothing runs without.
const HALF = 0.1;

export function barHeight(cost, most) {
  if (!(most > 0)) return 0;
  return Math.log1p(Math.max(0, cost) / HALF) / Math.log1p(most / HALF);
}

// How strongly a layer is coloured for a token, from 0 to 1; a cost that is not finite is null.
export function needShare(cost, limit) {
  return cost === null ? 1 : Math.min(1, Math.abs(cost) / limit);
}
