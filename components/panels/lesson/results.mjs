// Draws what came out of a step: tables, texts side by side, and sentences that say whether it came
// out as expected. Everything that comes from a model goes onto the page as text.
import { make } from '../../widgets/dom.mjs';

export function drawBlock(block, running) {
  const box = make('section', `lesson-${block.kind}`);
  if (block.title) box.append(make('h3', '', block.title));
  if (block.kind === 'table') box.append(table(block));
  if (block.kind === 'texts') box.append(...block.sides.map((side) => text(side, block, running)));
  if (block.kind === 'lines') box.append(...block.lines.map(sentence));
  return box;
}

function table(block) {
  const grid = make('table');
  const lines = [block.head, ...block.rows].map((cells, row) => {
    const line = make('tr');
    line.append(...cells.map((words, column) => {
      const cell = make(row && column ? 'td' : 'th', column ? '' : 'lesson-first', words);
      if (cell.tagName === 'TH') cell.scope = row ? 'row' : 'col';
      return cell;
    }));
    return line;
  });
  grid.append(...lines);
  return grid;
}

function text(side, block, running) {
  const box = make('div', `lesson-text ${side.wrong ? 'wrong' : ''}`);
  const words = make('p');
  words.append(make('span', 'lesson-prompt', block.prompt), make('b', '', side.text));
  if (running && !side.error && !side.ended) words.append(make('i', 'lesson-caret'));
  box.append(make('h4', '', side.label), words);
  if (side.error) box.append(make('code', 'lesson-error', side.error));
  return box;
}

function sentence({ right, text: words }) {
  const box = make('p', right === true ? 'right' : right === false ? 'differs' : '');
  const mark = right === true ? '✓' : right === false ? '≠' : '·';
  box.append(make('span', 'lesson-mark', mark), make('span', '', words));
  return box;
}
