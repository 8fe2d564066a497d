// Draws tokens in the colour of their damage, and the predictions of base and patient for each.
// Every word goes onto the page as text.
import { make } from '../../widgets/dom.mjs';
import { markOutdated } from '../../widgets/page_plan.mjs';
import { percent, probabilityText } from '../../widgets/text.mjs';
import { damageText, strength, visible } from './damage_text.mjs';

const STEPS = {
  ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -1e9, End: 1e9,
};

function number({ label, hint, value, below }) {
  const box = make('div');
  box.title = hint;
  box.append(make('span', '', label), make('b', '', value), make('small', '', below));
  return box;
}

function predictions(title, guesses, loss) {
  const box = make('div');
  box.append(make('em', '', `${title}: ${probabilityText(loss)}`));
  for (const [token, share] of guesses) {
    const line = make('div');
    line.append(make('code', '', visible(token)), ` ${percent(share)}`);
    box.append(line);
  }
  return box;
}

export function mount({ element, trigger, props, watch }) {
  const board = element.querySelector('.damage');
  const text = element.querySelector('.damage-text');
  const card = element.querySelector('.damage-card');
  let tokens = [];
  let shown = ''; // the text that the drawn tokens were read from
  let picked = 0;
  const drawOutdated = markOutdated({
    element,
    board,
    line: board.querySelector('.outdated'),
    made: () => props.value?.of,
    ask: 'Compare again.',
  });

  function showCard(index) {
    const token = tokens[index];
    if (!token) return;
    const box = make('div');
    box.append(make('em', '', 'Token'), make('code', '', visible(token.text)),
      make('div', '', `damage: ${damageText(token.damage)}`));
    card.replaceChildren(box, predictions('Base', token.baseSays, token.base),
      predictions('Patient', token.patientSays, token.patient));
  }

  function mark() {
    for (const span of text.querySelectorAll('[aria-selected=true]')) {
      span.setAttribute('aria-selected', 'false');
    }
    const span = text.children[picked];
    if (!span) return;
    span.setAttribute('aria-selected', 'true');
    text.setAttribute('aria-activedescendant', span.id);
  }

  function pick(index) {
    picked = Math.max(0, Math.min(tokens.length - 1, index));
    mark();
    showCard(picked);
    text.children[picked]?.scrollIntoView({ block: 'nearest' });
    trigger('select', { index: picked });
  }

  function indexOf(event) {
    return event.target.parentNode === text ? Number(event.target.dataset.index) : -1;
  }

  text.addEventListener('pointerover', (event) => indexOf(event) >= 0 && showCard(indexOf(event)));
  text.addEventListener('pointerleave', () => showCard(picked));
  text.addEventListener('click', (event) => indexOf(event) >= 0 && pick(indexOf(event)));
  text.addEventListener('keydown', (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    pick(picked + step);
    event.preventDefault();
    event.stopPropagation();
  });

  function drawTokens() {
    text.replaceChildren(...tokens.map((token, i) => {
      const startsWindow = i && token.window !== tokens[i - 1].window;
      const span = make('span', token.damage < 0 ? 'better' : 'worse',
        startsWindow ? `\n${token.text}` : token.text);
      span.style.setProperty('--strength', strength(token.damage));
      span.id = `damage-token-${i}`;
      span.dataset.index = i;
      span.setAttribute('role', 'option');
      span.setAttribute('aria-selected', 'false');
      return span;
    }));
  }

  function render() {
    const value = props.value;
    board.classList.toggle('empty', !value?.tokens);
    drawOutdated();
    if (!value?.tokens) return;
    element.querySelector('.damage-numbers').replaceChildren(...value.numbers.map(number));
    if (value.tokens !== shown) {
      shown = value.tokens;
      tokens = JSON.parse(shown);
      picked = value.picked;
      drawTokens();
      const { offsetTop = 0 } = text.children[picked] || {};
      text.scrollTop = offsetTop - text.offsetTop - text.clientHeight / 2; // it is in sight
    }
    mark();
    showCard(picked);
  }

  watch('value', render);
  render();
}
