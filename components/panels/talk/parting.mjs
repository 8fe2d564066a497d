// Where the texts of base and patient part, word by word.

const WORD = /\s*\S+/g; // with the space before it

function words(text) {
  return [...text.matchAll(WORD)].map(({ 0: word, index }) => ({
    word, place: [index + word.search(/\S/), index + word.length],
  }));
}

// Whether a text that is still being written may yet have `other` as its word number `i`.
function mayBecome(list, i, other, { finished }) {
  if (finished || i < list.length - 1) return false;
  return !list[i] || (other || '').startsWith(list[i].word);
}

// {word, base, patient}: the number of the first word that differs, from 1, and its place in each
// text as [start, end); null for a text that ends before it. `word` is 0 if the texts are the same.
// null while that isn't known. A side has its `text`, and `finished` once nothing follows.
export function parting(base, patient) {
  const [a, b] = [words(base.text), words(patient.text)];
  let i = 0;
  while (a[i] && a[i].word === b[i]?.word) i += 1;
  if (mayBecome(a, i, b[i]?.word, base) || mayBecome(b, i, a[i]?.word, patient)) return null;
  if (!a[i] && !b[i]) return { word: 0, base: null, patient: null };
  return { word: i + 1, base: a[i]?.place ?? null, patient: b[i]?.place ?? null };
}

export function partingText(parts) {
  if (!parts) return '';
  return parts.word ? `differs at word ${parts.word}` : 'same as the base';
}
