// Where what floats over the strip goes: beside the layers that it is about, and within the strip.
const MARGIN = 8; // pixels

// The left edge of a box of that width, centred over [from, to] and kept within a width.
export function centred(from, to, width, within) {
  const left = (from + to - width) / 2;
  return Math.max(MARGIN, Math.min(within - width - MARGIN, left));
}

// The top of the toolbar: between the two rows, at the selected one; below both if it doesn't fit.
export function toolbarTop(strip, between, bottom, height) {
  if (between.bottom - between.top < height) return bottom + MARGIN;
  return strip === 'base' ? between.top : between.bottom - height;
}
