// Runs both texts again once the plan has been left alone for a moment.

const PAUSE = 700; // milliseconds without an edit

export class AutoRun {
  #owed = false; // a run for the last edit
  #timer = null;

  // `ready` says whether a run may begin; `run` begins it. One that may not begin yet is owed.
  constructor({ ready, run }) {
    this.ready = ready;
    this.run = run;
  }

  edited() {
    this.clear();
    this.#owed = true;
    this.consider();
  }

  // What `ready` depends on may have changed.
  consider() {
    if (!this.#owed || this.#timer !== null) return;
    this.#timer = setTimeout(() => this.#begin(), PAUSE);
  }

  // Nothing is owed: the texts are of this plan, or nobody wants them.
  clear() {
    this.#owed = false;
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  #begin() {
    this.#timer = null;
    if (!this.ready()) {
      this.consider(); // a page that was just opened is ready soon
      return;
    }
    this.#owed = false;
    this.run();
  }
}
