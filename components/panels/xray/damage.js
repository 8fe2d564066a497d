// Draws tokens in the colour of their damage, and what base and patient would have said instead.
// Every word goes onto the page as text.
const board = element.querySelector('.damage');
const text = element.querySelector('.damage-text');
const card = element.querySelector('.damage-card');
const FULL = 4; // nats of damage that give the full colour

let tokens = [];
let shown = null; // what the drawn tokens were made of
let picked = 0;

function make(tag, words) {
  const node = document.createElement(tag);
  node.textContent = words;
  return node;
}

function colour(damage) {
  const strength = Math.min(1, Math.abs(damage ?? FULL) / FULL);
  return damage !== null && damage < 0
    ? `rgb(0 114 178 / ${(0.7 * strength).toFixed(3)})`
    : `rgb(230 120 0 / ${(0.85 * strength).toFixed(3)})`;
}

function numbers(list) {
  element.querySelector('.damage-numbers').replaceChildren(...list.map((number) => {
    const box = document.createElement('div');
    box.title = number.hint;
    box.append(make('span', number.label), make('b', number.value), make('small', number.below));
    return box;
  }));
}

function visible(piece) {
  return piece.replaceAll('\n', '⏎') || '∅';
}

function says(title, guesses, loss) {
  const box = document.createElement('div');
  const probability = loss === null ? 'nothing at all' : `${(100 * Math.exp(-loss)).toPrecision(2)} %`;
  box.append(make('em', `${title}: gave it ${probability}`));
  for (const [piece, share] of guesses) {
    const line = document.createElement('div');
    line.append(make('code', visible(piece)), ` ${(100 * share).toFixed(1)} %`);
    box.append(line);
  }
  return box;
}

function tell(index) {
  const token = tokens[index];
  if (!token) return;
  const what = document.createElement('div');
  const damage = token.damage === null ? 'beyond measure' : `${token.damage >= 0 ? '+' : '−'}${Math.abs(token.damage).toFixed(2)} nats`;
  what.append(make('em', 'Token'), make('code', visible(token.text)), make('div', `damage ${damage}`));
  card.replaceChildren(what, says('Base', token.baseSays, token.base),
    says('Patient', token.patientSays, token.patient));
}

function mark() {
  for (const span of text.querySelectorAll('[aria-selected=true]')) span.setAttribute('aria-selected', 'false');
  text.children[picked]?.setAttribute('aria-selected', 'true');
}

function pick(index) {
  picked = Math.max(0, Math.min(tokens.length - 1, index));
  mark();
  tell(picked);
  text.children[picked]?.scrollIntoView({ block: 'nearest' });
  trigger('select', { index: picked });
}

function at(event) {
  return event.target.parentNode === text ? [...text.children].indexOf(event.target) : -1;
}

text.addEventListener('pointerover', (event) => at(event) >= 0 && tell(at(event)));
text.addEventListener('pointerleave', () => tell(picked));
text.addEventListener('click', (event) => at(event) >= 0 && pick(at(event)));
text.addEventListener('keydown', (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -1e9, End: 1e9 }[event.key];
  if (!step) return;
  pick(picked + step);
  event.preventDefault();
  event.stopPropagation();
});

function render() {
  const value = props.value;
  board.classList.toggle('empty', !value?.tokens);
  if (!value?.tokens) return;
  numbers(value.numbers);
  const key = JSON.stringify(value.tokens);
  if (key !== shown) {
    shown = key;
    tokens = value.tokens;
    text.replaceChildren(...tokens.map((token, i) => {
      const span = make('span', token.text);
      if (i && token.window !== tokens[i - 1].window) span.textContent = `\n${token.text}`;
      span.style.background = colour(token.damage);
      span.setAttribute('role', 'option');
      span.setAttribute('aria-selected', 'false');
      return span;
    }));
    picked = value.picked;
  }
  mark();
  tell(picked);
}

watch('value', render);
render();
