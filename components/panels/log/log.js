// Rows of measured plans: draws them as text, hands them out, brings a plan back.
const table = element.querySelector('.log table');
const COLUMNS = [
  ['plan', 'plan'], ['perplexity', 'perplexity'], ['low', 'from'], ['high', 'to'],
  ['layers', 'layers'], ['parameters', 'parameters'],
  ['note', 'how'], ['text', 'on'], ['tokens', 'tokens'], ['base', 'base'],
];

let entries = [];

function worded(key, value) {
  if (value === null) return '∞';
  if (typeof value !== 'number') return value;
  return ['layers', 'parameters', 'tokens'].includes(key) ? value.toLocaleString('en')
    : Number(value.toPrecision(4)).toLocaleString('en', { maximumSignificantDigits: 4 });
}

function render() {
  entries = props.value?.entries || [];
  element.querySelector('.log-none').hidden = entries.length > 0;
  table.replaceChildren();
  if (!entries.length) return;
  const head = table.insertRow();
  for (const [, label] of COLUMNS) {
    const cell = document.createElement('th');
    cell.scope = 'col';
    cell.textContent = label;
    head.append(cell);
  }
  entries.map((entry, index) => [entry, index]).reverse().forEach(([entry, index]) => {
    const row = table.insertRow();
    for (const [key] of COLUMNS) {
      const cell = row.insertCell();
      if (key !== 'plan') {
        cell.textContent = worded(key, entry[key]);
        continue;
      }
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = entry.plan;
      button.title = `Bring this plan back: ${entry.plan}`;
      button.addEventListener('click', () => trigger('select', { index }));
      cell.append(button);
    }
  });
}

function csv() {
  const cell = (value) => {
    const text = value === null || value === undefined ? '' : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const keys = COLUMNS.map(([key]) => key);
  return [keys, ...entries.map((entry) => keys.map((key) => entry[key]))]
    .map((row) => row.map(cell).join(',')).join('\r\n') + '\r\n';
}

element.querySelector('.plot-save').addEventListener('click', (event) => {
  const kind = event.target.closest('[data-as]')?.dataset.as;
  if (!kind) return;
  const text = kind === 'csv' ? csv() : JSON.stringify(entries, null, 2);
  const url = URL.createObjectURL(new Blob([text], { type: kind === 'csv' ? 'text/csv' : 'application/json' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = `layer-surgery-log.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
});

watch('value', render);
render();
