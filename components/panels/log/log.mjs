// Rows of measured plans: draws them as text, names, pins and compares them, hands them out, brings
// a plan back.
import { downloadText, make } from '../../widgets/dom.mjs';
import { csv } from '../../widgets/text.mjs';
import { cells, compared, csvRows, HEADS, ordered, TASK_HEADS, taskCells } from './rows.mjs';

const SIDES = ['A', 'B'];
const LATER = 300; // milliseconds from leaving a name until the table is drawn

// `at` names the control, so that it keeps the focus when the rows are drawn again.
function button(className, text, at, label, press) {
  const node = make('button', className, text);
  node.type = 'button';
  node.dataset.at = at;
  node.title = label;
  node.setAttribute('aria-label', label);
  node.addEventListener('click', press);
  return node;
}

function cell(className, [line, below]) {
  const box = make('td', className);
  box.append(make('div', '', line), make('small', '', below));
  return box;
}

// Draw a table anew; without rows, it is empty.
function fill(table, heads, rows) {
  table.replaceChildren();
  if (!rows.length) return;
  table.createTHead().insertRow().append(...heads.map((head) => {
    const node = make('th', '', head);
    node.scope = 'col';
    return node;
  }));
  table.createTBody().append(...rows);
}

export function mount({ element, trigger, props, watch }) {
  const table = element.querySelector('.log table');
  const pair = element.querySelector('.log-pair');
  const chosen = { A: null, B: null }; // indices of entries
  let entries = [];
  let waitsFor = null; // the field in hand for which drawing waits

  // Not at once: a button that is pressed next would be replaced under the pointer.
  function drawLater() {
    waitsFor = null;
    setTimeout(render, LATER);
  }

  function nameField(entry) {
    const field = make('input', 'log-name');
    field.value = entry.name;
    field.placeholder = 'name';
    field.maxLength = 40;
    field.dataset.at = `name ${entry.index}`;
    field.setAttribute('aria-label', `Name of the plan ${entry.plan}`);
    field.addEventListener('change', () => {
      trigger('rename', { index: entry.index, name: field.value });
    });
    return field;
  }

  function planCell(entry) {
    const { index, pinned, plan } = entry;
    const pin = button('log-pin', pinned ? '★' : '☆', `pin ${index}`, `Pin ${plan}`, () => {
      trigger('pin', { index, pinned: !pinned });
    });
    pin.setAttribute('aria-pressed', pinned);
    const apply = button('log-plan', plan, `plan ${index}`, `Apply this plan: ${plan}`, () => {
      trigger('select', { index });
    });
    const head = make('div', 'log-head');
    head.append(pin, nameField(entry));
    const box = make('td', 'log-what');
    box.append(head, apply);
    if (entry.front) box.append(make('small', 'log-front', 'on the Pareto front'));
    if (entry.skills) box.append(make('small', 'log-skills', `skills: ${entry.skills}`));
    return box;
  }

  function sideCell(entry) {
    const box = make('td', 'log-sides');
    for (const side of SIDES) {
      const label = `Compare as ${side}: ${entry.name || entry.plan}`;
      const pressed = chosen[side] === entry.index;
      const node = button('log-side-button', side, `${side} ${entry.index}`, label, () => {
        chosen[side] = pressed ? null : entry.index;
        render();
      });
      node.setAttribute('aria-pressed', pressed);
      box.append(node);
    }
    return box;
  }

  function row(entry) {
    const line = make('tr', entry.pinned ? 'pinned' : '');
    const { perplexity, size, measured } = cells(entry);
    line.append(
      planCell(entry),
      cell('log-number', perplexity),
      cell('log-number', size),
      cell('log-measured', measured),
      sideCell(entry),
    );
    return line;
  }

  function drawPair() {
    const [a, b] = SIDES.map((side) => entries.find((entry) => entry.index === chosen[side]));
    pair.hidden = !a && !b;
    [a, b].forEach((entry, i) => {
      const box = pair.querySelector(`[data-side=${SIDES[i]}]`);
      box.replaceChildren(make('b', '', SIDES[i]));
      if (!entry) {
        box.append(make('span', '', `Choose ${SIDES[i]} in a row below.`));
        return;
      }
      const { perplexity, size } = cells(entry);
      const facts = `perplexity ${perplexity[0]}, ${size[0]}, ${size[1]} parameters`;
      const text = make('span');
      text.append(make('strong', '', entry.name || entry.plan), make('small', '', facts));
      const label = `Open ${SIDES[i]}: ${entry.plan}`;
      const open = button('log-open', `Open ${SIDES[i]}`, `open ${SIDES[i]}`, label, () => {
        trigger('select', { index: entry.index });
      });
      box.append(text, open);
    });
    pair.querySelector('p').textContent = a && b ? compared(a, b) : '';
  }

  function taskRow(task) {
    const line = make('tr');
    const label = `Apply this plan: ${task.plan}`;
    const apply = button('log-plan', task.plan, `task ${task.plan} ${task.task}`, label, () => {
      trigger('select', { plan: task.plan });
    });
    const what = make('td', 'log-what');
    what.append(apply);
    line.append(what, ...taskCells(task).map((lines) => cell('log-number', lines)));
    return line;
  }

  function drawTasks() {
    const tasks = props.value?.tasks || [];
    const box = element.querySelector('.log-tasks');
    box.hidden = !tasks.length;
    fill(box.querySelector('table'), TASK_HEADS, tasks.toReversed().map(taskRow));
  }

  // The field of a name that is being typed: drawn anew, it would lose what was typed.
  function nameInHand() {
    const field = document.activeElement;
    if (!element.contains(field) || !field.classList.contains('log-name')) return null;
    const entry = (props.value?.entries || []).find(({ index }) => field.dataset.at === `name ${index}`);
    return entry && entry.name !== field.value ? field : null;
  }

  function render() {
    const field = nameInHand();
    if (field) {
      if (field !== waitsFor) field.addEventListener('blur', drawLater, { once: true });
      waitsFor = field;
      return;
    }
    const focused = element.contains(document.activeElement) && document.activeElement.dataset.at;
    entries = props.value?.entries || [];
    element.querySelector('.log-none').hidden = entries.length > 0;
    drawPair();
    drawTasks();
    fill(table, HEADS, ordered(entries).map(row));
    if (focused) element.querySelector(`[data-at="${focused}"]`)?.focus({ preventScroll: true });
  }

  element.querySelector('.plot-save').addEventListener('click', (event) => {
    const kind = event.target.closest('[data-as]')?.dataset.as;
    if (!kind) return;
    const name = `layer-surgery-log.${kind}`;
    if (kind === 'csv') downloadText(csv(csvRows(entries)), name, 'text/csv');
    else downloadText(JSON.stringify(entries, null, 2), name, 'application/json');
  });

  watch('value', render);
  render();
}
