// Draws the two texts as they come. Every word of a model goes onto the page as text.
import { make } from '../../widgets/dom.mjs';
import { speed } from './speed.mjs';

const HINTS = {
  base: 'The base model’s output appears here.',
  patient: 'The patient’s output appears here, for the same prompt and seed.',
};

export function mount({ element, props, watch }) {
  let ended = 0; // the last run that was stopped or came to its end

  function drawPane(name, { prompt, running, [name]: side }) {
    const pane = element.querySelector(`[data-who=${name}]`);
    const text = pane.querySelector('.talk-text');
    const plan = pane.querySelector('.talk-plan');
    plan.textContent = side?.plan || '';
    plan.title = side?.plan || '';
    pane.querySelector('output').textContent = speed(side);
    if (!side) {
      text.replaceChildren(make('span', 'talk-hint', HINTS[name]));
      return;
    }
    const below = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
    text.replaceChildren(make('span', 'talk-prompt', prompt), make('span', 'talk-said', side.text));
    if (running && !side.finished) text.append(make('span', 'talk-caret'));
    if (below) text.scrollTop = text.scrollHeight;
  }

  function render() {
    const value = { ...props.value };
    if (value.run && !value.running) ended = value.run;
    if (value.run === ended) value.running = false; // drawings of it may still arrive
    drawPane('base', value);
    drawPane('patient', value);
  }

  watch('value', render);
  render();
}
