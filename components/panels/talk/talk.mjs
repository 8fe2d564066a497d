// Draws the two texts as they come, and has them run again after an edit. Every word of a model goes
// onto the page as text.
import { make } from '../../widgets/dom.mjs';
import { watchNewest } from '../../widgets/newest.mjs';
import { healingOf } from '../../widgets/page_plan.mjs';
import { followPage } from '../../widgets/page_values.mjs';
import { probabilityText } from '../../widgets/text.mjs';
import { AutoRun } from './auto_run.mjs';
import { Following } from './following.mjs';
import { fieldsOf, outdated } from './outdated.mjs';
import { parting, partingText } from './parting.mjs';
import { speed } from './speed.mjs';
import { cut, level } from './surprise.mjs';
import { createTokenMode } from './token_mode.mjs';

const HINTS = {
  base: 'The base model’s output appears here, token by token. Press Stream both.',
  patient: 'The patient’s output appears here, for the same prompt and seed. The first word that '
    + 'differs from the base’s text is framed; tokens that the base finds unlikely are underlined.',
};
const PAUSE = 150; // milliseconds between drawings of texts that grow
const SIDES = ['base', 'patient'];
const SWITCH = 'layer-surgery-auto-run'; // where the browser keeps it

function stored() {
  try {
    return localStorage.getItem(SWITCH);
  } catch {
    return null; // storage is switched off
  }
}

function store(value) {
  try {
    localStorage.setItem(SWITCH, value);
  } catch { /* full or switched off: then it is not kept */ }
}

// A text that was stopped may not have parted yet.
function partsOf({ base, patient }) {
  return base?.text && patient?.text ? parting(base, patient) : null;
}

// A generated text, with the word at `place` framed. With `measured`, its tokens can be selected.
function said(side, place, measured, name) {
  const box = make('span', 'talk-said');
  let mark = null;
  const known = side.pieces || [];
  const pieces = measured ? measured.pieces.map((text, i) => [text, known[i]?.[1]]) : side.pieces;
  for (const { text, nats, inside, piece } of cut(pieces || [[side.text]], place)) {
    const token = make('span', level(nats) ? `level-${level(nats)}` : '', text);
    if (measured) {
      token.dataset.token = piece;
      token.setAttribute('role', 'option');
      token.id = `talk-${name}-${piece}`;
    }
    if (nats !== undefined) token.title = `${probabilityText(nats)} under the base`;
    if (inside && !mark) {
      mark = make('mark', 'talk-apart');
      mark.title = 'The texts first differ here';
      box.append(mark);
    }
    (inside ? mark : box).append(token);
  }
  return box;
}

export function mount({ element, trigger, props, watch }) {
  const autoSwitch = element.querySelector('.talk-auto input');
  const explain = element.querySelector('.talk-explain');
  const legend = element.querySelector('.talk-legend');
  const pane = (name) => element.querySelector(`[data-who=${name}]`);
  const following = Object.fromEntries(SIDES.map((name) => (
    [name, new Following(pane(name).querySelector('.talk-text'))]
  )));
  let value = {}; // what is drawn
  let timer = 0; // of the next drawing
  let begun = 0; // the latest run
  let ended = 0; // the last run that was stopped or came to its end
  let shown = 0; // the last run whose first difference was brought into sight
  let now = null; // {spec, plan, fields} of the page
  let healed = null; // {spec, plan, key} of the patient that was healed last

  function arrived(next) {
    if (next?.running && next.run === ended) return; // it was on its way when the run ended
    if (next?.layers !== value.layers) tokens.take(next);
    value = { ...next };
    if (value.run && !value.running) ended = value.run;
    renderSoon();
  }

  // Why a side is not what the page would generate now; empty if it is.
  function stale(name, made) {
    if (!now || !made?.spec) return '';
    return outdated(name, made, { ...now, healing: healingOf(healed, now) });
  }

  // ---------------------------------------------------------------- drawing

  function drawPane(name, parts) {
    const { prompt, running, [name]: side } = value;
    const box = pane(name);
    const text = box.querySelector('.talk-text');
    const plan = box.querySelector('.talk-plan');
    const why = side ? stale(name, value) : '';
    plan.textContent = side?.plan || '';
    plan.title = side?.plan || '';
    box.classList.toggle('stale', Boolean(why));
    box.querySelector('.talk-stale').textContent = why;
    box.querySelector('.talk-stale').title = why;
    const facts = [name === 'patient' ? partingText(parts) : '', speed(side)].filter(Boolean);
    box.querySelector('output').textContent = facts.join(' · ');
    box.querySelector('output').title = facts.join(' · ');
    if (!side) {
      text.replaceChildren(make('span', 'talk-hint', HINTS[name]));
      return;
    }
    following[name].draw(() => {
      text.replaceChildren(make('span', 'talk-prompt', prompt), said(side, parts?.[name], tokens.of(name), name));
      if (parts?.word && !parts[name]) text.append(' ', make('mark', 'talk-apart', 'ends here'));
      if (running && !side.finished) text.append(make('span', 'talk-caret'));
    });
  }

  const tokens = createTokenMode({
    element,
    texts: Object.fromEntries(SIDES.map((name) => [name, pane(name).querySelector('.talk-text')])),
    places: () => partsOf(value),
    fits: (name) => !now || (now.spec === value.spec && (name === 'base'
      || (now.plan === value.plan && healingOf(healed, now) === value.healing))),
    isVisible,
    redraw: () => render(),
  });

  function begin({ run, spec, plan, healing }) {
    begun = run;
    SIDES.forEach((name) => following[name].restart());
    // The patient that generates the text is the one that there is.
    if (healing) healed = { spec, plan, key: healing };
    else if (healingOf(healed, { spec, plan })) healed = null;
  }

  // Once a run has ended; where the panel is hidden nothing can be scrolled.
  function showDifference() {
    const { run, running } = value;
    if (!run || running || shown === run || !isVisible()) return;
    shown = run;
    for (const name of SIDES) following[name].show(pane(name).querySelector('.talk-apart'));
  }

  function render() {
    clearTimeout(timer);
    timer = 0;
    if (value.run > begun) begin(value);
    const parts = partsOf(value);
    for (const name of SIDES) drawPane(name, parts);
    legend.classList.toggle('pictured', Boolean(value.pictured));
    legend.classList.toggle('shown', Boolean(parts?.word || value.patient?.pieces));
    explain.hidden = tokens.isOn || !value.base?.text || value.running || value.pictured;
    tokens.mark();
    showDifference();
  }

  // A drawing lays the page out anew: texts that grow are drawn a few times a second.
  function renderSoon() {
    if (value.running) {
      timer ||= setTimeout(render, PAUSE);
    } else render();
  }

  // ---------------------------------------------------------------- Auto-run

  function isVisible() {
    return element.isConnected && element.offsetParent !== null;
  }

  function isWanted() {
    return !value.patient?.finished || value.running || Boolean(stale('patient', value));
  }

  const auto = new AutoRun({
    ready: () => autoSwitch.checked && isVisible() && !document.querySelector('#stream')?.disabled,
    run: () => isWanted() && trigger('rerun', {}),
  });

  // Texts follow edits; a lesson's step and a link set up a plan that nobody asked to hear.
  function changed(view, ...values) {
    if (!view?.patient) return;
    const before = now;
    const sameBase = before?.spec === view.spec;
    now = {
      spec: view.spec,
      // What was typed wrong stands in the box, and the plan stays as it was.
      plan: view.error && sameBase ? before.plan : view.text,
      fields: fieldsOf(values),
    };
    if (!sameBase || now.plan !== before.plan) {
      auto.clear();
      if (view.edited && autoSwitch.checked) follow();
    }
    render();
  }

  // Texts that are being generated are of the plan before.
  function follow() {
    if (value.running) {
      ended = value.run;
      value.running = false;
      trigger('cease', {});
    }
    auto.edited();
  }

  document.addEventListener('quality-due', ({ detail }) => auto.measuring(detail));

  document.addEventListener('healed', ({ detail }) => {
    if (!element.isConnected) return;
    healed = detail;
    if (autoSwitch.checked && stale('patient', value)) auto.edited();
    render();
  });

  if (stored()) autoSwitch.checked = stored() === 'on';
  autoSwitch.addEventListener('change', () => {
    store(autoSwitch.checked ? 'on' : 'off');
    auto.clear();
    if (autoSwitch.checked && stale('patient', value)) auto.edited();
  });

  explain.addEventListener('click', () => trigger('explain', {}));

  new ResizeObserver(() => { // the tab is back, or left
    tokens.mark();
    if (!isVisible()) return;
    showDifference();
  }).observe(pane('base'));

  // The switch belongs beside the Stream button, which may be drawn after it.
  function settle() {
    const row = document.querySelector('.talk-controls');
    if (row) row.append(autoSwitch.parentNode);
    else requestAnimationFrame(settle);
  }

  // ---------------------------------------------------------------- the share card

  document.addEventListener('share-card', ({ detail }) => {
    if (!element.isConnected || !value.patient) return;
    const parts = partsOf(value);
    detail.prompt = value.prompt;
    detail.texts = SIDES.map((name) => ({
      name,
      facts: [
        stale(name, value) && [stale(name, value), value[name].plan].filter(Boolean).join(' '),
        name === 'patient' ? partingText(parts) : '',
        speed(value[name]),
      ].filter(Boolean).join(' · '),
      runs: cut([[value[name].text]], parts?.[name]),
    }));
  });

  settle();
  watchNewest({ props, watch }, 'run', arrived);
  followPage(element, changed);
}
