// Runs both texts again once the plan has been left alone for a moment and the first number of its
// quality is there: computed at the same time, both would come late.

const PAUSE = 700; // milliseconds without an edit
const PATIENCE = 2500; // milliseconds to wait for the number, after the pause

export class AutoRun {
  #timer = 0; // until the run for the last edit
  #held = false; // the pause is over, and the number isn't there
  #measuring = false;

  // `ready` says whether a run may begin, and is asked again until it may; `run` begins it.
  constructor({ ready, run }) {
    this.ready = ready;
    this.run = run;
  }

  edited() {
    this.clear();
    this.#timer = setTimeout(() => {
      if (this.#measuring && this.ready()) {
        this.#held = true;
        this.#timer = setTimeout(() => this.#begin(), PATIENCE);
      } else this.#begin();
    }, PAUSE);
  }

  // Whether the first number of the plan's quality is still to come.
  measuring(due) {
    this.#measuring = due;
    if (this.#held && !due) this.#begin();
  }

  // No run is due: the texts are of this plan, or nobody wants them.
  clear() {
    clearTimeout(this.#timer);
    this.#held = false;
  }

  #begin() {
    this.clear();
    if (this.ready()) this.run();
    else this.edited();
  }
}
