// Draws a board of numbers, a table with bars, and what the patient writes, all of it as text. Tells
// the page once a patient was healed.
import { make } from '../../widgets/dom.mjs';
import { markOutdated } from '../../widgets/page_plan.mjs';

function tile({ label, hint, value, below }) {
  const box = make('div');
  box.title = hint;
  box.append(make('span', '', label), make('b', '', value), make('small', '', below));
  return box;
}

function cell(role, text) {
  const node = make('span', '', text);
  node.setAttribute('role', role);
  return node;
}

function row([name, size, share]) {
  const bar = make('i');
  bar.style.width = `${100 * share}%`;
  const track = cell('presentation');
  track.className = 'heal-track';
  track.append(bar);
  const line = make('div');
  line.setAttribute('role', 'row');
  line.append(cell('rowheader', name), cell('cell', size), track);
  return line;
}

export function mount({ element, props, watch }) {
  const board = element.querySelector('.heal-board');
  const table = board.querySelector('.heal-rows');
  const line = board.querySelector('.heal-message');
  const quote = board.querySelector('.heal-quote');
  const drawOutdated = markOutdated({
    element,
    board,
    line: board.querySelector('.outdated'),
    made: () => props.value?.of,
  });

  function render() {
    const {
      numbers = [], rows = [], quote: text = '', message = '', failed = false, healed,
    } = props.value || {};
    board.hidden = !numbers.length && !message;
    drawOutdated();
    line.hidden = !message;
    line.textContent = message;
    line.classList.toggle('failed', failed);
    board.querySelector('.heal-numbers').replaceChildren(...numbers.map(tile));
    table.hidden = !rows.length;
    table.replaceChildren(...rows.map(row));
    quote.hidden = !text;
    quote.querySelector('q').textContent = text;
    if (healed) document.dispatchEvent(new CustomEvent('healed', { detail: healed }));
  }

  watch('value', render);
  render();
}
