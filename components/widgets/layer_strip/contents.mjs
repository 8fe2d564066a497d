// What is in a layer, from the `contents` that Python sends: parameters by component, with shapes.
import { integer } from '../text.mjs';

const NAMES = { attention: 'Attention', mlp: 'MLP', experts: 'Experts', norms: 'Norms' };

function sizeOf({ shape, times }) {
  return shape.reduce((product, length) => product * length, times);
}

export function shapeText({ shape, times }) {
  const text = shape.map(integer).join(' × ') || '1';
  return times > 1 ? `${integer(times)} of ${text}` : text;
}

// [{title, parameters, rows: [{name, shape}]}], the largest component first.
export function componentsOf({ layouts, of }, source) {
  const groups = new Map();
  for (const part of layouts[of[source]] || []) {
    const title = NAMES[part.component] || 'Other';
    const group = groups.get(title) || { title, parameters: 0, rows: [] };
    group.parameters += sizeOf(part);
    group.rows.push({ name: part.name.replace(/\.weight$/, ''), shape: shapeText(part) });
    groups.set(title, group);
  }
  return [...groups.values()].toSorted((a, b) => b.parameters - a.parameters);
}

export function contentsInWords(source, groups) {
  const total = groups.reduce((sum, group) => sum + group.parameters, 0);
  const parts = groups.map(({ title, parameters }) => `${title} ${integer(parameters)}`);
  return `Layer ${source} has ${integer(total)} parameters: ${parts.join(', ')}`;
}
