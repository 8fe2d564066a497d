// Draws the two texts as they come, and has them run again after an edit. Every word of a model goes
// onto the page as text.
import { make } from '../../widgets/dom.mjs';
import { probabilityText } from '../../widgets/text.mjs';
import { AutoRun } from './auto_run.mjs';
import { parting, partingText } from './parting.mjs';
import { speed } from './speed.mjs';
import { cut, level } from './surprise.mjs';

const HINTS = {
  base: 'The base model’s output appears here, token by token. Press Stream both.',
  patient: 'The patient’s output appears here, for the same prompt and seed. The word at which it '
    + 'leaves the base’s text is framed, and tokens that the base finds unlikely are underlined.',
};
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

// A generated text, with the word at `place` framed.
function said(side, place) {
  const box = make('span', 'talk-said');
  let mark = null;
  for (const { text, nats, inside } of cut(side.pieces || [[side.text]], place)) {
    const token = make('span', level(nats) ? `level-${level(nats)}` : '', text);
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
  const legend = element.querySelector('.talk-legend');
  const pane = (name) => element.querySelector(`[data-who=${name}]`);
  let ended = 0; // the last run that was stopped or came to its end
  let now = null; // {spec, plan} of the page

  function current() {
    const value = { ...props.value };
    if (value.run && !value.running) ended = value.run;
    if (value.run === ended) value.running = false; // drawings of it may still arrive
    return value;
  }

  // Why a side is not of the page's base and plan; empty if it is.
  function stale(name, { spec, plan }) {
    if (!now || !spec) return '';
    if (spec !== now.spec) return 'another base';
    return name === 'patient' && plan !== now.plan ? 'older plan' : '';
  }

  // ---------------------------------------------------------------- drawing

  function drawPane(name, value, parts) {
    const { prompt, running, [name]: side } = value;
    const box = pane(name);
    const text = box.querySelector('.talk-text');
    const plan = box.querySelector('.talk-plan');
    const why = side ? stale(name, value) : '';
    plan.textContent = side?.plan || '';
    plan.title = side?.plan || '';
    box.classList.toggle('stale', Boolean(why));
    box.querySelector('.talk-stale').textContent = why;
    const facts = [speed(side), name === 'patient' ? partingText(parts) : ''];
    box.querySelector('output').textContent = facts.filter(Boolean).join(' · ');
    if (!side) {
      text.replaceChildren(make('span', 'talk-hint', HINTS[name]));
      return;
    }
    const below = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
    text.replaceChildren(make('span', 'talk-prompt', prompt), said(side, parts?.[name]));
    if (parts?.word && !parts[name]) {
      const end = make('mark', 'talk-apart', 'ends here');
      text.append(' ', end);
    }
    if (running && !side.finished) text.append(make('span', 'talk-caret'));
    if (below) text.scrollTop = text.scrollHeight;
  }

  function render() {
    const value = current();
    const parts = partsOf(value);
    for (const name of SIDES) drawPane(name, value, parts);
    legend.classList.toggle('shown', Boolean(parts?.word || value.patient?.pieces));
  }

  // ---------------------------------------------------------------- Auto-run

  function isVisible() {
    return element.isConnected && element.offsetParent !== null;
  }

  function isWanted() {
    const { patient, running } = current();
    return !patient?.finished || running || Boolean(stale('patient', props.value));
  }

  const auto = new AutoRun({
    ready: () => autoSwitch.checked && isVisible() && !document.querySelector('#stream')?.disabled,
    run: () => isWanted() && trigger('rerun', {}),
  });

  // Called by the page's own event whenever the strip has changed, see wiring.py.
  function changed(view) {
    if (!view?.patient || !element.isConnected) return;
    const before = now;
    const sameBase = before?.spec === view.spec;
    // What was typed wrong stands in the box, and the plan stays as it was.
    now = { spec: view.spec, plan: view.error && sameBase ? before.plan : view.text };
    if (sameBase && now.plan === before.plan) return;
    auto.clear();
    if (sameBase && autoSwitch.checked) {
      const { run, running } = current();
      if (running) {
        ended = run;
        trigger('cease', {});
      }
      auto.edited();
    }
    render();
  }

  window.layerSurgeryTalk = changed;

  if (stored()) autoSwitch.checked = stored() === 'on';
  autoSwitch.addEventListener('change', () => {
    store(autoSwitch.checked ? 'on' : 'off');
    auto.clear();
    if (autoSwitch.checked && stale('patient', current())) auto.edited();
  });

  new ResizeObserver(() => isVisible() && auto.consider()).observe(pane('base')); // the tab is back

  // The switch belongs beside the Stream button, which may be drawn after it.
  function settle() {
    const row = document.querySelector('.talk-controls');
    if (row) row.append(autoSwitch.parentNode);
    else requestAnimationFrame(settle);
  }

  // ---------------------------------------------------------------- the share card

  document.addEventListener('share-card', ({ detail }) => {
    const value = current();
    if (!element.isConnected || !value.patient) return;
    const parts = partsOf(value);
    detail.prompt = value.prompt;
    detail.texts = SIDES.map((name) => ({
      name,
      facts: [
        stale(name, value) && [stale(name, value), value[name].plan].filter(Boolean).join(': '),
        name === 'patient' ? partingText(parts) : '',
        speed(value[name]),
      ].filter(Boolean).join(' · '),
      runs: cut([[value[name].text]], parts?.[name]),
    }));
  });

  settle();
  watch('value', render);
  render();
}
