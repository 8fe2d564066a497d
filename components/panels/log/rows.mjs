// Measured plans as rows: what stands in the table, and what goes into a CSV file.
import { integer, perplexity } from '../../widgets/text.mjs';

const text = (value) => value ?? '';

export const COLUMNS = [
  { label: 'plan', keys: ['plan'], show: text },
  { label: 'perplexity', keys: ['perplexity'], show: perplexity, number: true },
  {
    label: '95 % CI',
    keys: ['low', 'high'],
    show: (low, high) => `${perplexity(low)} to ${perplexity(high)}`,
    number: true,
  },
  { label: 'layers', keys: ['layers'], show: integer, number: true },
  { label: 'parameters', keys: ['parameters'], show: integer, number: true },
  { label: 'method', keys: ['note'], show: text },
  { label: 'text', keys: ['text'], show: text },
  { label: 'tokens', keys: ['tokens'], show: integer, number: true },
  { label: 'base', keys: ['base'], show: text },
];

export function cellText({ keys, show }, entry) {
  return show(...keys.map((key) => entry[key]));
}

export function csvRows(entries) {
  const keys = COLUMNS.flatMap((column) => column.keys);
  return [keys, ...entries.map((entry) => keys.map((key) => entry[key]))];
}
