// How the lesson looks: its steps, the text of one, what came out of it. Everything that comes from
// a model goes onto the page as text.
const panel = element.querySelector('.lesson');
const part = (name) => panel.querySelector(`.lesson-${name}`);
const button = (name) => panel.querySelector(`[data-do=${name}]`);

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const number = (value) => value.toLocaleString('en-GB');

// The list of steps: made once, then only marked.
function drawList(steps, go) {
  part('steps').replaceChildren(...steps.map((step, i) => {
    const item = make('li');
    const jump = make('button', step.fault ? 'fault' : '', String(i + 1));
    jump.type = 'button';
    jump.title = step.short;
    jump.addEventListener('click', () => go(i));
    item.append(jump);
    return item;
  }));
}

function markList(steps, at, done) {
  part('steps').querySelectorAll('button').forEach((jump, i) => {
    const here = i === at;
    jump.classList.toggle('done', done.has(i));
    if (here) jump.setAttribute('aria-current', 'step');
    else jump.removeAttribute('aria-current');
    const said = done.has(i) ? ', done' : '';
    jump.setAttribute('aria-label', `Step ${i + 1}: ${steps[i].short}${said}`);
  });
}

function drawStep(steps, at) {
  const step = steps[at];
  part('count').textContent = `Step ${at + 1} of ${steps.length}`;
  panel.querySelector('h2').textContent = step.title;
  panel.classList.toggle('lesson-fault', step.fault);
  part('words').replaceChildren(...step.words.map((words) => make('p', '', words)));
  part('base').textContent = step.base_name;
  part('plan').textContent = step.plan;
  part('act').textContent = step.button;
  part('notice').querySelector('span').textContent = step.notice;
  button('back').disabled = at === 0;
  const next = steps[at + 1];
  button('next').textContent = next ? `${next.short} →` : 'The end';
  button('next').setAttribute('aria-label', next ? `Next: ${next.short}` : 'The end');
  button('next').disabled = !next;
  part('body').scrollTop = 0;
}

// Expected parameters beside what the page computed for the plan that it shows.
function drawCheck(expected, found) {
  const line = part('check');
  const right = found === expected;
  line.classList.toggle('right', right);
  line.replaceChildren(make('span', 'lesson-mark', right ? '✓' : '·'));
  const say = (text, tag = 'span') => line.append(make(tag, '', text));
  if (right) {
    say(number(found), 'b');
    say(' parameters, as expected');
  } else {
    say('Expected ');
    say(number(expected), 'b');
    const other = found === null ? 'nothing yet'
      : `${number(found)}, ${number(Math.abs(found - expected))} ${found > expected ? 'more' : 'fewer'}`;
    say(` parameters; the page shows ${other}`);
  }
}

function drawStatus(status, running) {
  const box = part('status');
  const text = (status && status.text) || '';
  box.hidden = !text;
  box.classList.toggle('failed', Boolean(status && status.failed));
  box.querySelector('p').textContent = text;
  const track = part('track');
  const known = running && typeof status?.share === 'number';
  track.hidden = !known;
  if (!known) return;
  const percent = Math.round(100 * status.share);
  track.setAttribute('aria-valuenow', percent);
  track.firstElementChild.style.width = `${percent}%`;
}

// What a step brought: tables, texts side by side, and sentences that say whether it came out.
function drawBlocks(blocks, running) {
  const before = part('results').childElementCount;
  part('results').replaceChildren(...blocks.map((block) => {
    const box = make('section', `lesson-${block.kind}`);
    if (block.title) box.append(make('h3', '', block.title));
    if (block.kind === 'table') box.append(table(block));
    if (block.kind === 'texts') box.append(...block.sides.map((side) => text(side, block, running)));
    if (block.kind === 'lines') box.append(...block.lines.map(sentence));
    return box;
  }));
  // What has just begun is brought into sight; whoever scrolls meanwhile is left alone.
  if (running && blocks.length > before) part('results').lastElementChild.scrollIntoView({ block: 'nearest' });
}

function table(block) {
  const grid = make('table');
  const head = make('tr');
  head.append(...block.head.map((cell) => make('th', '', cell)));
  head.querySelectorAll('th').forEach((cell) => { cell.scope = 'col'; });
  grid.append(head);
  for (const row of block.rows) {
    const line = make('tr');
    line.append(...row.map((cell, i) => make(i ? 'td' : 'th', '', cell)));
    line.firstElementChild.scope = 'row';
    grid.append(line);
  }
  for (const line of grid.children) line.firstElementChild.className = 'lesson-first';
  return grid;
}

function text(side, block, running) {
  const box = make('div', `lesson-text ${side.wrong ? 'wrong' : ''}`);
  box.append(make('h4', '', side.label));
  const words = make('p');
  words.append(make('span', 'lesson-prompt', block.prompt), make('b', '', side.text));
  if (running && !side.error && !side.ended) words.append(make('i', 'lesson-caret'));
  box.append(words);
  if (side.error) box.append(make('code', 'lesson-error', side.error));
  return box;
}

function sentence(line) {
  const box = make('p', line.right === true ? 'right' : line.right === false ? 'differs' : '');
  const mark = line.right === true ? '✓' : line.right === false ? '≠' : '·';
  box.append(make('span', 'lesson-mark', mark), make('span', '', line.text));
  return box;
}
