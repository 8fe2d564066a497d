// Lines of the share card.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wrapped } from '../../components/panels/link/wrap.mjs';

const measure = (text) => [...text].length; // every character is one wide
const lines = (runs, width, most = 9) => wrapped(runs, width, most, measure)
  .map((pieces) => pieces.map(({ text }) => text).join(''));

test('words go onto the next line', () => {
  assert.deepEqual(lines([{ text: 'one two three' }], 8), ['one two ', 'three']);
  assert.deepEqual(lines([{ text: 'a\n\nb' }], 8), ['a', '', 'b']);
});

test('a word that is too long is broken', () => {
  assert.deepEqual(lines([{ text: 'abcdefgh ij' }], 5), ['abcde', 'fgh ', 'ij']);
});

test('an ellipsis stands for what does not fit', () => {
  assert.deepEqual(lines([{ text: 'one two three four' }], 9, 1), ['one two …']);
  assert.deepEqual(lines([{ text: 'abcdefgh' }], 3, 1), ['abc …']);
});

test('styles keep their places', () => {
  const [first] = wrapped([{ text: 'ab ', style: 1 }, { text: 'cd', style: 2 }], 9, 1, measure);
  assert.deepEqual(first.map(({ style, x }) => [style, x]), [[1, 0], [1, 2], [2, 3]]);
});

test('a surrogate pair is not torn', () => {
  assert.deepEqual(lines([{ text: '😀😀😀' }], 2), ['😀😀', '😀']);
});
