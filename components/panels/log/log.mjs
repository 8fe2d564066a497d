// Rows of measured plans: draws them as text, hands them out, brings a plan back.
import { downloadText, make } from '../../widgets/dom.mjs';
import { csv } from '../../widgets/text.mjs';
import { COLUMNS, cellText, csvRows } from './rows.mjs';

export function mount({ element, trigger, props, watch }) {
  const table = element.querySelector('.log table');
  let entries = [];

  function planButton(entry, index) {
    const button = make('button', '', entry.plan);
    button.type = 'button';
    button.title = `Apply this plan: ${entry.plan}`;
    button.addEventListener('click', () => trigger('select', { index }));
    return button;
  }

  function render() {
    entries = props.value?.entries || [];
    element.querySelector('.log-none').hidden = entries.length > 0;
    table.replaceChildren();
    if (!entries.length) return;
    table.insertRow().append(...COLUMNS.map(({ label, number }) => {
      const cell = make('th', number ? 'number' : '', label);
      cell.scope = 'col';
      return cell;
    }));
    [...entries.entries()].toReversed().forEach(([index, entry]) => {
      const row = table.insertRow();
      for (const column of COLUMNS) {
        const cell = row.insertCell();
        cell.className = column.number ? 'number' : '';
        cell.append(column.label === 'plan' ? planButton(entry, index) : cellText(column, entry));
      }
    });
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
