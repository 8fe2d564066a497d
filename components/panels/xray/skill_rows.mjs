// Rows of skills as words and as numbers to take away.
import { percent } from '../../widgets/text.mjs';

const KEYS = [
  'key', 'items', 'chance', 'base', 'patient', 'low', 'high', 'accuracy_change', 'margin_change',
  'verdict',
];

// A continuation without the space that it begins with.
export function visible(text) {
  return text.trim();
}

// What a row says, in sentences.
export function inWords(row) {
  const { base, patient, chance, items } = row;
  if (base === undefined) return ['Not probed yet.'];
  const [low, high] = row.base_interval.map((share) => percent(share, 0));
  const sentences = [
    `Guessing: ${percent(chance, 0)}. Base: ${percent(base, 0)} of ${items} items (95 % interval ${low} to ${high}).`,
  ];
  if (patient !== undefined) {
    sentences.push(
      `Patient: ${percent(patient, 0)}, a change of ${row.accuracy_change}.`,
      `Margin, ln p(right) − ln p(best wrong): ${row.margin_change}.`,
    );
  }
  return sentences;
}

export function csvRows({ rows, texts }) {
  const lines = rows.map((row) => KEYS.map((key) => row[key]));
  const repeated = KEYS.map((key) => ({ key: 'repeated_4_grams', ...texts }[key]));
  return [KEYS, ...lines, ...(texts ? [repeated] : [])];
}

// [node, by how many pixels it was elsewhere] of those that changed places.
export function moved(before, nodes) {
  return nodes
    .filter((node) => before.has(node) && before.get(node) !== node.offsetTop)
    .map((node) => [node, before.get(node) - node.offsetTop]);
}
