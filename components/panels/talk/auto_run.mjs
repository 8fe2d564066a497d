// Runs both texts again once the plan has been left alone for a moment.

const PAUSE = 700; // milliseconds without an edit

export class AutoRun {
  #timer = 0; // until the run for the last edit

  // `ready` says whether a run may begin, and is asked again until it may; `run` begins it.
  constructor({ ready, run }) {
    this.ready = ready;
    this.run = run;
  }

  edited() {
    this.clear();
    this.#timer = setTimeout(() => {
      if (this.ready()) this.run();
      else this.edited();
    }, PAUSE);
  }

  // No run is due: the texts are of this plan, or nobody wants them.
  clear() {
    clearTimeout(this.#timer);
  }
}
