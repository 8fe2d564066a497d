// Draws a row for each skill: the base's and the patient's share of right answers on one line, with
// the share that guesses reach. Every word goes onto the page as text.
import { downloadText, make } from '../../widgets/dom.mjs';
import { markOutdated } from '../../widgets/page_plan.mjs';
import { csv, percent } from '../../widgets/text.mjs';
import { csvRows, inWords, moved, visible } from './skill_rows.mjs';

const GLIDE = 450; // milliseconds in which rows change places

function box(className, ...children) {
  const node = make('div', className);
  node.append(...children);
  return node;
}

function place(node, share) {
  node.style.setProperty('--at', share);
  node.hidden = !Number.isFinite(share);
}

// What an item looks like, and the numbers behind the verdict.
function details(row) {
  const { prompt, right, wrong } = row.example;
  const item = make('p', 'skills-item');
  const space = right.length - right.trimStart().length;
  item.append(prompt, right.slice(0, space), make('b', '', visible(right)));
  const others = make('p', '');
  others.append('Right: ', make('b', 'skills-right', visible(right)), '. Wrong: ',
    ...wrong.flatMap((text, i) => [i ? ', ' : '', make('s', '', visible(text))]), '.');
  const sentences = inWords(row).map((sentence) => make('p', '', sentence));
  return [make('p', 'skills-hint', `${row.label}: ${row.hint}. An item:`), item, others, ...sentences];
}

function newRow(key) {
  const node = make('div', 'skills-row');
  node.dataset.key = key;
  const label = make('span', 'skills-label');
  const help = make('button', 'skills-help', '?');
  help.type = 'button';
  help.setAttribute('aria-expanded', 'false');
  const track = box('skills-track', ...[25, 50, 75].map((at) => {
    const line = make('i', 'skills-line');
    line.style.setProperty('--at', at / 100);
    return line;
  }), ...['guess', 'link', 'interval', 'dot base', 'dot patient'].map((name) => (
    make('i', `skills-${name}`)
  )));
  track.setAttribute('role', 'img');
  const more = box('skills-details');
  more.hidden = true;
  help.addEventListener('click', () => {
    more.hidden = !more.hidden;
    help.setAttribute('aria-expanded', !more.hidden);
  });
  node.append(box('skills-name', label, help), track, box('skills-numbers'),
    box('skills-verdict'), more);
  return node;
}

function drawTrack(node, { chance, base, patient, low, high }) {
  const part = (name) => node.querySelector(`.skills-${name}`);
  place(part('guess'), chance);
  place(part('dot.base'), base);
  place(part('dot.patient'), patient);
  for (const [name, from, to] of [['link', base, patient], ['interval', low, high]]) {
    const line = part(name);
    line.hidden = !Number.isFinite(from) || !Number.isFinite(to);
    line.style.setProperty('--from', Math.min(from, to));
    line.style.setProperty('--to', Math.max(from, to));
  }
}

function numbers({ base, patient }) {
  return [base, patient].filter((share) => share !== undefined)
    .map((share) => (share === null ? 'none' : percent(share, 0))).join(' → ');
}

function drawRow(node, row) {
  node.style.setProperty('--verdict', row.colour || 'var(--body-text-color-subdued)');
  node.classList.toggle('waiting', row.base === undefined);
  node.classList.toggle('faint', row.verdict === 'at chance');
  node.querySelector('.skills-label').textContent = row.label;
  node.querySelector('.skills-help').setAttribute('aria-label', `What is ${row.label}?`);
  drawTrack(node, row);
  node.querySelector('.skills-track').setAttribute('aria-label', inWords(row).join(' '));
  node.querySelector('.skills-numbers').textContent = numbers(row);
  const verdict = row.verdict ? [make('b', '', row.verdict), make('small', '', row.why)] : [];
  node.querySelector('.skills-verdict').replaceChildren(...verdict);
  node.querySelector('.skills-details').replaceChildren(...details(row));
}

export function mount({ element, props, watch }) {
  const board = element.querySelector('.skills');
  const list = board.querySelector('.skills-rows');
  const below = board.querySelector('.skills-texts');
  const drawStale = markOutdated({
    element,
    board,
    line: board.querySelector('.outdated'),
    made: () => props.value?.of,
    ask: 'Probe skills again.',
  });

  // Rows that change places glide there.
  function arrange(rows) {
    const before = new Map([...list.children].map((node) => [node, node.offsetTop]));
    const nodes = rows.map((row) => (
      list.querySelector(`[data-key="${row.key}"]`) || newRow(row.key)
    ));
    const same = nodes.every((node, i) => list.children[i] === node);
    if (!same) list.replaceChildren(...nodes);
    nodes.forEach((node, i) => drawRow(node, rows[i]));
    if (same || matchMedia('(prefers-reduced-motion: reduce)').matches) return;
    for (const [node, by] of moved(before, nodes)) {
      node.animate([{ transform: `translateY(${by}px)` }, { transform: 'none' }], {
        duration: GLIDE, easing: 'ease-in-out',
      });
    }
  }

  function drawTexts(texts) {
    if (!texts) {
      below.replaceChildren();
      return;
    }
    const node = below.firstElementChild || newRow('texts');
    if (!node.isConnected) below.append(node);
    drawTrack(node, { ...texts, chance: undefined });
    node.style.setProperty('--verdict', 'var(--body-text-color-subdued)');
    node.querySelector('.skills-label').textContent = 'repeated text';
    node.querySelector('.skills-help').setAttribute('aria-label', 'What is repeated text?');
    node.querySelector('.skills-numbers').textContent = numbers(texts);
    node.querySelector('.skills-track').setAttribute('aria-label', `Repeated: ${numbers(texts)}.`);
    node.querySelector('.skills-verdict').replaceChildren(make('small', '', 'lower is better'));
    node.querySelector('.skills-details').replaceChildren(make('p', '', 'The model continues six '
      + 'prompts, always with the likeliest token: the share of 4-grams of tokens that occurred '
      + 'before in the same text. Sound models repeat themselves too. Six texts are too few for '
      + 'an interval or a verdict.'));
  }

  function render() {
    const { value } = props;
    board.classList.toggle('empty', !value?.rows);
    if (!value?.rows) return;
    board.querySelector('h2').textContent = value.title;
    board.style.setProperty('--base', value.colours.base);
    board.style.setProperty('--patient', value.colours.patient);
    const legend = board.querySelector('.skills-of-patient');
    legend.hidden = !value.patient;
    legend.querySelector('b').textContent = value.patient;
    board.querySelector('.skills-alone').textContent = value.patient ? '' : 'with 95 % interval';
    board.querySelector('.skills-counts').replaceChildren(...value.counts.map((one) => {
      const node = make('span', '', `${one.count} ${one.verdict}`);
      node.style.setProperty('--verdict', one.colour || 'var(--body-text-color-subdued)');
      return node;
    }), make('small', '', value.so_far));
    arrange(value.rows);
    drawTexts(value.texts);
    board.querySelector('.skills-note').textContent = value.note;
    drawStale();
  }

  element.querySelector('.plot-save').addEventListener('click', (event) => {
    if (!event.target.closest('[data-as]') || !props.value?.rows) return;
    downloadText(csv(csvRows(props.value)), 'skills.csv', 'text/csv');
  });

  watch('value', render);
  render();
}
