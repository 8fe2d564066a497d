// A token's damage in words, and how strongly it is coloured. Losses are in nats; null stands for
// one that is not finite.

const FULL = 4; // nats of damage that give the full colour

export function strength(damage) {
  return Math.min(1, Math.abs(damage ?? FULL) / FULL).toFixed(3);
}

export function damageText(damage) {
  if (damage === null) return 'not finite';
  return `${damage >= 0 ? '+' : '−'}${Math.abs(damage).toFixed(2)} nats`;
}

// A token that can be seen, whatever it consists of.
export function visible(token) {
  return token.replaceAll('\n', '⏎') || '∅';
}
