// The patient's tokens by how likely the base finds each of them.

const LIMITS = [Math.log(10), Math.log(100), Math.log(1000)]; // nats: 10 %, 1 %, 0.1 %

// 0 for a likely token to 3 for one below 0.1 %. null stands for a surprise that is not finite.
export function level(nats) {
  if (nats === undefined) return 0;
  return LIMITS.filter((limit) => nats === null || nats > limit).length;
}

// Pieces [text, nats] cut at the ends of `place` ([start, end) in their whole text, or null), each
// with whether it lies in it, and its piece: [{text, nats, inside, piece}].
export function cut(pieces, place) {
  const ends = place || [];
  const runs = [];
  let at = 0;
  for (const [piece, [text, nats]] of pieces.entries()) {
    const stops = [at, ...ends.filter((end) => end > at && end < at + text.length), at + text.length];
    for (let i = 1; i < stops.length; i += 1) {
      const [start, end] = [stops[i - 1], stops[i]];
      const inside = Boolean(place) && start >= place[0] && end <= place[1];
      if (end > start) runs.push({ text: text.slice(start - at, end - at), nats, inside, piece });
    }
    at += text.length;
  }
  return runs;
}
