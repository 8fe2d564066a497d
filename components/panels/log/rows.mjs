// Measured plans as rows: what stands in the table, what goes into a CSV file, and two compared.
import { integer, perplexity } from '../../widgets/text.mjs';

export const HEADS = ['plan', 'perplexity, 95 % CI', 'size', 'measured on', 'compare'];

export const TASK_HEADS = ['plan', 'task', 'base', 'patient', 'difference'];

const VERDICTS = { same: 'no clear change', better: 'better', worse: 'worse' };

const KEYS = [
  'name', 'pinned', 'plan', 'perplexity', 'low', 'high', 'layers', 'parameters', 'note', 'text',
  'tokens', 'base', 'skills',
];

// Pinned plans first, and the newest first among equals.
export function ordered(entries) {
  const newest = entries.toReversed();
  return [...newest.filter((entry) => entry.pinned), ...newest.filter((entry) => !entry.pinned)];
}

function millions(parameters) {
  return `${(parameters / 1e6).toLocaleString('en', { maximumSignificantDigits: 4 })}\u00a0M`;
}

function counted(count, one) {
  return `${integer(count)} ${one}${count === 1 ? '' : 's'}`;
}

// Each cell as a line and what stands below it in small letters.
export function cells(entry) {
  const interval = `${perplexity(entry.low)} to ${perplexity(entry.high)}`;
  const below = [entry.note, entry.here ? '' : entry.base].filter(Boolean).join(', ');
  return {
    perplexity: [perplexity(entry.perplexity), interval],
    size: [counted(entry.layers, 'layer'), millions(entry.parameters)],
    measured: [`${entry.text}, ${counted(entry.tokens, 'token')}`, below],
  };
}

// A score over its standard error, so that a column stays narrow.
function withError(score, verdict) {
  const [value, error] = score.split(' ± ');
  return [value, [error && `± ${error}`, verdict].filter(Boolean).join(', ')];
}

// The cells of a task after its plan, each as a line and what stands below it.
export function taskCells(task) {
  return [
    [task.task, [task.metric, task.items].filter(Boolean).join(', ')],
    withError(task.base),
    withError(task.patient),
    withError(task.difference, VERDICTS[task.verdict]),
  ];
}

export function csvRows(entries) {
  return [KEYS, ...entries.map((entry) => KEYS.map((key) => entry[key]))];
}

function moreOrFewer(difference, text) {
  return `${text(Math.abs(difference))} ${difference > 0 ? 'more' : 'fewer'}`;
}

function sizes(a, b) {
  const layers = b.layers - a.layers;
  const parameters = b.parameters - a.parameters;
  const parts = [];
  if (layers) parts.push(moreOrFewer(layers, (n) => counted(n, 'layer')));
  if (parameters) parts.push(moreOrFewer(parameters, (n) => `${millions(n)} parameters`));
  return parts.length ? `B has ${parts.join(' and ')}.` : 'Both have the same size.';
}

function losses(a, b) {
  if (a.base !== b.base || a.text !== b.text || a.tokens !== b.tokens) {
    return ['Their perplexities can’t be compared: the base or the text differs.'];
  }
  if (a.perplexity === null || b.perplexity === null) return ['One perplexity is not finite.'];
  const nats = Math.log(b.perplexity / a.perplexity);
  const sign = nats < 0 ? '−' : '+';
  const apart = b.low > a.high || b.high < a.low;
  return [
    `B against A: ${sign}${Math.abs(nats).toFixed(3)} nats per token.`,
    apart ? 'Their intervals don’t overlap.' : 'Their intervals overlap: measure on more text to tell.',
  ];
}

// How B differs from A, in sentences.
export function compared(a, b) {
  return [sizes(a, b), ...losses(a, b)].join(' ');
}
