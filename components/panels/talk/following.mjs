// Scrolls the text in a card: to its end while it grows, then to the word that differs.

const NEAR = 40; // pixels from the end that still count as at the end
const TOUCHES = ['wheel', 'touchmove', 'pointerdown', 'keydown'];

// Where to scroll so that a mark is in sight: to the beginning if it can be seen from there, else to
// the line before it. `mark` is its top and bottom in the text, in pixels.
export function placeOf(mark, height, line) {
  return mark.bottom <= height ? 0 : Math.max(0, mark.top - line);
}

export class Following {
  #touched = false; // the reader has chosen a place

  constructor(box) {
    this.box = box;
    for (const touch of TOUCHES) {
      box.addEventListener(touch, ({ key }) => {
        if (key !== 'Tab') this.#touched = true;
      }, { passive: true });
    }
  }

  // A new text begins.
  restart() {
    this.#touched = false;
  }

  // Draws with `draw`, and stays at the end if the reader is there.
  draw(draw) {
    const { scrollHeight, scrollTop, clientHeight } = this.box;
    const atEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    draw();
    this.box.scrollTop = atEnd ? this.box.scrollHeight : scrollTop;
  }

  // Brings `mark` into sight, unless the reader has chosen a place.
  show(mark) {
    if (!mark || this.#touched) return;
    const { top } = this.box.getBoundingClientRect();
    const seen = mark.getBoundingClientRect();
    const from = this.box.scrollTop - top;
    const line = parseFloat(getComputedStyle(this.box).lineHeight) || 24;
    this.box.scrollTop = placeOf(
      { top: seen.top + from, bottom: seen.bottom + from }, this.box.clientHeight, line,
    );
  }
}
