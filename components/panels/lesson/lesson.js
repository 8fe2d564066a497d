// How the lesson is walked through: opening, jumping, doing a step, keys, and its place in the link.

const opener = element.querySelector('.lesson-open');
const steps = props.value.steps;
const results = new Map(); // what came out of each step, by its place
const done = new Set();
const narrow = matchMedia('(max-width: 1099px)'); // no room for a column
const tight = matchMedia('(max-width: 1700px)');
let at = 0;
let open = false;
let running = null; // the place of the step that is under way
let page = null; // what the page counts: {base, patient}, or null

// ---------------------------------------------------------------- the link

function fromLink() {
  const wanted = Number(new URLSearchParams(location.search).get('lesson'));
  return Number.isInteger(wanted) && wanted >= 1 && wanted <= steps.length ? wanted - 1 : null;
}

// The other parameters stay as they are written, letter for letter.
function intoLink() {
  const rest = location.search.slice(1).split('&').filter((p) => p && !/^lesson(=|$)/.test(p));
  if (open) rest.push(`lesson=${at + 1}`);
  const search = rest.length ? `?${rest.join('&')}` : '';
  if (search === location.search) return;
  history.replaceState(history.state, '', location.pathname + search + location.hash);
}

// ---------------------------------------------------------------- showing

function show() {
  if (!open) return;
  const mine = results.get(at);
  markList(steps, at, done);
  drawBlocks((mine && mine.blocks) || [], running === at);
  drawStatus(mine && mine.status, running === at);
  drawCheck(steps[at].parameters, page ? page.patient : null);
  button('stop').hidden = running === null;
  part('act').setAttribute('aria-disabled', running !== null);
}

function go(place) {
  at = Math.max(0, Math.min(place, steps.length - 1));
  drawStep(steps, at);
  show();
  intoLink();
}

// The page makes room: the lesson is a column beside it, or a sheet at its foot.
function makeRoom() {
  const body = document.body.classList;
  body.toggle('lesson-side', open && !narrow.matches);
  body.toggle('lesson-tight', open && !narrow.matches && tight.matches);
  body.toggle('lesson-sheet', open && narrow.matches);
}

for (const width of [narrow, tight]) width.addEventListener('change', makeRoom);

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
    intoLink();
    if (focus) opener.focus();
  }
}

function setLarge(wanted) {
  document.body.classList.toggle('lesson-large', wanted);
  button('enlarge').setAttribute('aria-pressed', wanted);
}

function setFolded(wanted) {
  document.body.classList.toggle('lesson-folded', wanted);
  button('fold').setAttribute('aria-expanded', !wanted);
  button('fold').textContent = wanted ? 'Unfold' : 'Fold';
}

// ---------------------------------------------------------------- doing

// Presses the page's own buttons, as a hand would: they know what follows.
function turnTo(name) {
  const tabs = document.querySelectorAll('#panels button[role=tab], #panels .overflow-dropdown button');
  const found = [...tabs].filter((tab) => tab.textContent.trim() === name);
  const tab = found.find((one) => one.offsetParent !== null) || found.at(-1);
  if (tab && tab.getAttribute('aria-selected') !== 'true') tab.click();
}

// Scrolls as little as brings into sight what the step is about.
const SHOWN = {
  Talk: ['#talk', 'nearest'],
  Weights: ['#panels', 'start'],
  Heal: ['#panels', 'nearest'],
  Save: ['#save-status', 'nearest'],
};

// Stops texts that still run.
function hush() {
  if (document.querySelector('#talk .talk-caret')) document.querySelector('#stop')?.click();
}

function reveal(step) {
  const [target, block] = step.act === 'write' ? ['#strip', 'nearest'] : SHOWN[step.tab];
  requestAnimationFrame(() => {
    document.querySelector(target)?.scrollIntoView({ block: narrow.matches ? 'start' : block });
  });
}

function act(more = {}) {
  if (running !== null) return;
  const step = steps[at];
  running = at;
  results.set(at, { status: { text: 'One moment …' }, blocks: [] });
  hush();
  if (step.tab !== 'Weights') turnTo(step.tab); // that panel begins to count once it is opened
  show();
  trigger('act', { step: at + 1, ...more });
}

function stop() {
  if (running === null) return;
  const mine = results.get(running);
  results.set(running, { ...mine, status: { text: 'Stopped.' } });
  running = null;
  show();
  trigger('halt', {});
}

function reset() {
  stop();
  hush();
  done.clear();
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
  const place = value.step - 1;
  if (running !== place) return; // of a step that was stopped
  results.set(place, { status: value.status, blocks: value.blocks || [] });
  if (!value.running) {
    running = null;
    if (value.done) done.add(place);
    if (!value.failed) {
      turnTo(steps[place].tab);
      reveal(steps[place]);
    }
  }
  show();
}

document.addEventListener('preview', (event) => {
  if (!element.isConnected) return;
  page = event.detail;
  if (arriving && page) arrive();
  if (open) drawCheck(steps[at].parameters, page ? page.patient : null);
});

// ---------------------------------------------------------------- hands and keys

const DO = {
  act: () => act(),
  stop,
  reset,
  back: () => go(at - 1),
  next: () => go(at + 1),
  close: () => setOpen(false),
  enlarge: () => setLarge(!document.body.classList.contains('lesson-large')),
  fold: () => setFolded(!document.body.classList.contains('lesson-folded')),
};

opener.addEventListener('click', () => setOpen(!open));

panel.addEventListener('click', (event) => {
  const pressed = event.target.closest('[data-do]');
  if (!pressed || pressed.disabled) return;
  DO[pressed.dataset.do]();
  // A button that has just been switched off or hidden can't keep the focus.
  if (pressed.disabled || pressed.hidden) part('body').focus({ preventScroll: true });
});

// Page Up and Page Down are what a presenter's clicker sends.
panel.addEventListener('keydown', (event) => {
  const key = { PageDown: 'next', PageUp: 'back', Escape: 'close' }[event.key];
  if (!key || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  event.stopPropagation();
  DO[key]();
});

drawList(steps, go);
watch('value', render);

// ---------------------------------------------------------------- coming from a link

// The page first opens what it opens by itself; then the step is set up on it, unless the link has
// a base or a plan of its own.
let arriving = fromLink() !== null;

function arrive() {
  arriving = false;
  const own = new URLSearchParams(location.search);
  if (!own.has('base') && !own.has('plan')) act({ stage: true });
}

if (arriving) {
  at = fromLink();
  setOpen(true, false);
}
