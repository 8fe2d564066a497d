// How small an image is made before it travels with a request.

const SIDE = 1024; // pixels; the models' own processors make most images smaller still
export const QUALITIES = [0.92, 0.8, 0.6]; // of the JPEG, until it is short enough

// A size with the same shape whose longer side has at most that many pixels.
export function fitInside(width, height) {
  const share = Math.min(1, SIDE / Math.max(width, height));
  return {
    width: Math.max(1, Math.round(width * share)),
    height: Math.max(1, Math.round(height * share)),
  };
}
