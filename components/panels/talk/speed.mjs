// How fast a text came, and whether it came to its end.
import { plural } from '../../widgets/text.mjs';

export function speed(side) {
  if (!side?.tokens) return '';
  const words = [plural(side.tokens, 'token')];
  if (side.tokens_per_second) words.push(`${side.tokens_per_second.toFixed(1)} tokens/s`);
  if (side.first) words.push(`first after ${side.first.toFixed(2)} s`);
  if (side.finished === 'end') words.push('end of text');
  return words.join(' · ');
}
