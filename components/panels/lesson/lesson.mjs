// How the lesson is walked through: opening, jumping, doing a step, keys, its place in the link.
import { writeQuery } from '../../widgets/page_address.mjs';
import { createLessonDrawing } from './lesson_drawing.mjs';
import { stepIn, withStep } from './lesson_address.mjs';

// What to scroll to after a step, by the tab that it is about.
const SHOWN = {
  Talk: ['#talk', 'nearest'],
  Weights: ['#panels', 'start'],
  Heal: ['#panels', 'nearest'],
  Save: ['#save-status', 'nearest'],
};
const HEADER = 1290; // pixels
// Page Up and Page Down are what a presenter's clicker sends.
const KEYS = { PageDown: 'next', PageUp: 'back', Escape: 'close' };

// Presses the page's own buttons, as a visitor would, so that what follows is the same.
function turnTo(name) {
  const all = document.querySelectorAll(
    '#panels button[role=tab], #panels .overflow-dropdown button',
  );
  const tabs = [...all].filter((tab) => tab.textContent.trim() === name);
  const tab = tabs.find((one) => one.offsetParent !== null) || tabs.at(-1);
  if (tab && tab.getAttribute('aria-selected') !== 'true') tab.click();
}

function stopTexts() {
  if (document.querySelector('#talk .talk-caret')) document.querySelector('#stop')?.click();
}

export function mount({ element, trigger, props, watch }) {
  const panel = element.querySelector('.lesson');
  const opener = element.querySelector('.lesson-open');
  const { steps } = props.value;
  const results = new Map(); // what came out of each step, by its index
  const done = new Set();
  const ready = new Set(); // steps whose base and plan the page was given
  const narrow = matchMedia('(max-width: 1099px)'); // no room for a column
  const body = document.body.classList;
  const draw = createLessonDrawing(panel, steps, go);
  const { part, button } = draw;
  let at = 0;
  let open = false;
  let running = null; // the index of the step that is under way
  let parameters = null; // what the page counts: {base, patient}, or null

  // ---------------------------------------------------------------- showing

  function show() {
    if (!open) return;
    const result = results.get(at);
    draw.markSteps(at, done);
    draw.results(result?.blocks || [], running === at);
    draw.status(result?.status, running === at);
    showCheck();
    button('stop').hidden = running === null;
    part('act').setAttribute('aria-disabled', running !== null);
  }

  function showCheck() {
    part('check').hidden = !ready.has(at) || running === at;
    draw.check(steps[at].parameters, parameters ? parameters.patient : null);
  }

  function go(index) {
    at = Math.max(0, Math.min(index, steps.length - 1));
    draw.step(at);
    show();
    writeAddress();
  }

  function writeAddress() {
    writeQuery(withStep(location.search, open ? at : null));
  }

  // The page makes room: the lesson is a column beside it, or a sheet at its foot.
  function makeRoom() {
    body.toggle('lesson-side', open && !narrow.matches);
    body.toggle('lesson-sheet', open && narrow.matches);
    // The header of the page needs so much in one row; an enlarged lesson leaves it less.
    const room = innerWidth - panel.offsetWidth;
    body.toggle('lesson-tight', open && !narrow.matches && room < HEADER);
  }

  window.addEventListener('resize', makeRoom);

  function setOpen(wanted, focus = true) {
    open = wanted;
    panel.hidden = !open;
    opener.setAttribute('aria-expanded', open);
    makeRoom();
    if (open) {
      document.dispatchEvent(new CustomEvent('preview-ask'));
      go(at);
      if (focus) part('body').focus({ preventScroll: true });
    } else {
      setLarge(false);
      writeAddress();
      if (focus) opener.focus();
    }
  }

  function setLarge(wanted) {
    body.toggle('lesson-large', wanted);
    button('enlarge').setAttribute('aria-pressed', wanted);
    makeRoom();
  }

  function setFolded(wanted) {
    body.toggle('lesson-folded', wanted);
    button('fold').setAttribute('aria-expanded', !wanted);
    button('fold').textContent = wanted ? 'Expand' : 'Collapse';
  }

  // ---------------------------------------------------------------- doing

  // Scrolls as little as brings into sight what the step is about.
  function reveal(step) {
    const [target, block] = step.act === 'write' ? ['#strip', 'nearest'] : SHOWN[step.tab];
    requestAnimationFrame(() => {
      const node = document.querySelector(target);
      node?.scrollIntoView({ block: narrow.matches ? 'start' : block });
    });
  }

  function act(more = {}) {
    if (running !== null) return;
    const step = steps[at];
    running = at;
    results.set(at, { status: { text: 'Starting' }, blocks: [] });
    stopTexts();
    if (step.tab !== 'Weights') turnTo(step.tab); // that panel starts to count once it is opened
    show();
    trigger('act', { step: at + 1, ...more });
  }

  function stop() {
    if (running === null) return;
    results.set(running, { ...results.get(running), status: { text: 'Stopped.' } });
    running = null;
    show();
    trigger('halt', {});
  }

  function reset() {
    stop();
    stopTexts();
    done.clear();
    ready.clear();
    results.clear();
    setFolded(false);
    turnTo('Talk');
    go(0);
    trigger('again', {});
  }

  // ---------------------------------------------------------------- what Python answers

  function render() {
    const value = props.value;
    if (!value || !value.step) return;
    const index = value.step - 1;
    if (running !== index) return; // of a step that was stopped
    results.set(index, { status: value.status, blocks: value.blocks || [] });
    if (!value.running) {
      running = null;
      if (value.ready) ready.add(index);
      if (value.done) done.add(index);
      if (!value.failed) {
        turnTo(steps[index].tab);
        reveal(steps[index]);
      }
    }
    show();
  }

  document.addEventListener('preview', (event) => {
    if (!element.isConnected) return;
    parameters = event.detail;
    if (arriving && parameters) arrive();
    if (open) showCheck();
  });

  // ---------------------------------------------------------------- hands and keys

  const actions = {
    act: () => act(),
    stop,
    reset,
    back: () => go(at - 1),
    next: () => (at + 1 < steps.length ? go(at + 1) : setOpen(false)),
    close: () => setOpen(false),
    enlarge: () => setLarge(!body.contains('lesson-large')),
    fold: () => setFolded(!body.contains('lesson-folded')),
  };

  opener.addEventListener('click', () => setOpen(!open));

  panel.addEventListener('click', (event) => {
    const pressed = event.target.closest('[data-do]');
    if (!pressed || pressed.disabled) return;
    actions[pressed.dataset.do]();
    // A button that has just been switched off or hidden can't keep the focus.
    if (open && (pressed.disabled || pressed.hidden)) part('body').focus({ preventScroll: true });
  });

  panel.addEventListener('keydown', (event) => {
    const action = KEYS[event.key];
    if (!action || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const last = at + 1 === steps.length;
    if (last && action === 'next') return; // a presenter's clicker does not close the lesson
    actions[action]();
  });

  watch('value', render);

  // ---------------------------------------------------------------- coming from a link

  // The page first opens what it opens by itself; then the step is set up on it, unless the link
  // has a base or a plan of its own.
  const first = stepIn(location.search, steps.length);
  let arriving = first !== null;

  function arrive() {
    arriving = false;
    const own = new URLSearchParams(location.search);
    if (!own.has('base') && !own.has('plan')) act({ stage: true });
  }

  if (arriving) {
    at = first;
    setOpen(true, false);
  }
}
