// Edits on their way to Python. One is under way at a time; what is asked for meanwhile waits, and
// is completed only when it is sent, so that it acts on what the edits before it left.

const PATIENCE = 20_000; // milliseconds after which no answer is expected any more

export class EditQueue {
  #waiting = [];
  #timer = null; // runs while an edit is under way
  #current = null; // that edit
  // What came first: the edit that is under way, or the selection as it is?
  #clock = 0;
  #askedAt = 0;
  #selectedAt = 0;

  // `complete` makes of a waiting request what is sent, or null if there is nothing to do; `send`
  // sends it; `giveUp` is called when no answer comes.
  constructor({ complete, send, giveUp }) {
    this.complete = complete;
    this.send = send;
    this.giveUp = giveUp;
  }

  ask(request) {
    this.#waiting.push([request, (this.#clock += 1)]);
    this.advance();
  }

  // Sends the next request, unless one is under way.
  advance() {
    while (this.#timer === null && this.#waiting.length) {
      const [request, askedAt] = this.#waiting.shift();
      const full = this.complete(request);
      if (!full) continue;
      this.#askedAt = askedAt;
      this.#current = full;
      this.#timer = setTimeout(() => {
        this.answered();
        this.clear();
        this.giveUp();
      }, PATIENCE);
      this.send(full);
    }
  }

  // Returns the edit that was under way; null if there was none.
  answered() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const edit = this.#current;
    this.#current = null;
    return edit;
  }

  // Whether an edit of this kind is under way or waits.
  has(op) {
    return this.#current?.op === op || this.#waiting.some(([request]) => request.op === op);
  }

  clear() {
    this.#waiting = [];
  }

  selectionChanged() {
    this.#selectedAt = this.#clock += 1;
  }

  // Whether the selection was made after the edit under way was asked for; then its answer must not
  // replace it.
  get selectionIsNewer() {
    return this.#selectedAt > this.#askedAt;
  }
}
