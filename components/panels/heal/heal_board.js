// Draws a board of numbers, a table with bars, and what the patient writes, all of it as text.
const board = element.querySelector('.heal-board');
const table = board.querySelector('.heal-rows');
const quote = board.querySelector('.heal-quote');

function make(tag, words, role) {
  const node = document.createElement(tag);
  node.textContent = words;
  if (role) node.setAttribute('role', role);
  return node;
}

function figure({ label, hint, value, below }) {
  const box = document.createElement('div');
  box.title = hint;
  box.append(make('span', label), make('b', value), make('small', below));
  return box;
}

function row([name, size, share]) {
  const line = make('div', '', 'row');
  const bar = document.createElement('i');
  bar.style.width = `${100 * share}%`;
  const track = make('span', '', 'presentation');
  track.className = 'heal-track';
  track.append(bar);
  line.append(make('span', name, 'rowheader'), make('span', size, 'cell'), track);
  return line;
}

function render() {
  const { numbers = [], rows = [], quote: text = '' } = props.value || {};
  board.hidden = !numbers.length;
  board.querySelector('.heal-numbers').replaceChildren(...numbers.map(figure));
  table.hidden = !rows.length;
  table.replaceChildren(...rows.map(row));
  quote.hidden = !text;
  quote.querySelector('q').textContent = text;
}

watch('value', render);
render();
