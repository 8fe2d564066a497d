// Numbers and words as the page writes them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  bytes, csv, integer, percent, perplexity, plural, probabilityText,
} from '../../components/widgets/text.mjs';
import { parameterCheck } from '../../components/panels/lesson/parameter_check.mjs';
import {
  cells, compared, csvRows, ordered,
} from '../../components/panels/log/rows.mjs';
import { speed } from '../../components/panels/talk/speed.mjs';
import { damageText, strength, visible } from '../../components/panels/xray/damage_text.mjs';

test('one format for numbers', () => {
  assert.equal(integer(48910), '48,910');
  assert.deepEqual([12.3456, 48912.34, null].map(perplexity), ['12.35', '48,912', '∞']);
  assert.deepEqual([plural(1, 'layer'), plural(1200, 'layer')], ['1 layer', '1,200 layers']);
  assert.deepEqual([bytes(12), bytes(12_345), bytes(5e6)], ['12 bytes', '12.3 kB', '5.0 MB']);
  assert.equal(percent(0.0312), '3.1 %');
});

test('CSV quotes what has to be quoted', () => {
  assert.equal(csv([['a', null, 1], ['x,y', 'say "no"', 'two\nlines']]),
    'a,,1\r\n"x,y","say ""no""","two\nlines"\r\n');
});

test('a text says how fast it came and whether it ended', () => {
  assert.equal(speed(null), '');
  assert.equal(speed({ tokens: 0 }), '');
  assert.equal(speed({ tokens: 1, finished: 'end' }), '1 token · end of text');
  assert.equal(
    speed({ tokens: 64, tokens_per_second: 21.04, first: 0.1, finished: 'length' }),
    '64 tokens · 21.0 tokens/s · first after 0.10 s',
  );
});

test('damage in words and colour', () => {
  assert.deepEqual([1.5, -0.25, null].map(damageText), ['+1.50 nats', '−0.25 nats', 'not finite']);
  assert.deepEqual([2, -8, null].map(strength), ['0.500', '1.000', '1.000']);
  assert.deepEqual(
    [0, Math.log(30), 20, null].map(probabilityText),
    ['probability 100 %', 'probability 3.3 %', 'probability < 0.001 %', 'probability 0'],
  );
  assert.deepEqual(['a\n', ''].map(visible), ['a⏎', '∅']);
});

const entry = {
  plan: '0:3', perplexity: 12.3456, low: 11, high: null, layers: 3, parameters: 12_345_678, note: '',
  text: 'prose', tokens: 512, base: 'tiny', name: 'mine', pinned: false, here: true,
};

test('a row of the log, and the same as CSV', () => {
  assert.deepEqual(cells(entry), {
    perplexity: ['12.35', '11.00 to ∞'],
    size: ['3 layers', '12.35\u00a0M'],
    measured: ['prose, 512 tokens', ''],
  });
  const other = cells({ ...entry, note: 'greedy search', here: false, layers: 1 });
  assert.deepEqual([other.size[0], other.measured[1]], ['1 layer', 'greedy search, tiny']);
  const [head, row] = csvRows([entry]);
  assert.deepEqual(head.slice(0, 6), ['name', 'pinned', 'plan', 'perplexity', 'low', 'high']);
  assert.deepEqual(row.slice(0, 6), ['mine', false, '0:3', 12.3456, 11, null]);
});

test('pinned plans stand first, and the newest first among equals', () => {
  const rows = [1, 2, 3, 4].map((index) => ({ index, pinned: index === 2 || index === 1 }));
  assert.deepEqual(ordered(rows).map((row) => row.index), [2, 1, 4, 3]);
});

test('two plans are compared in words', () => {
  const a = { ...entry, perplexity: 10, low: 9, high: 11 };
  const b = {
    ...a, perplexity: 20, low: 18, high: 22, layers: 2, parameters: a.parameters - 2_000_000,
  };
  assert.equal(compared(a, b), 'B has 1 layer fewer and 2\u00a0M parameters fewer. '
    + 'B against A: +0.693 nats per token. Their intervals don’t overlap.');
  assert.match(compared(b, a), /^B has 1 layer more and 2\u00a0M parameters more\. B against A: −0\.693/);
  assert.equal(compared(a, { ...a, perplexity: 10.5 }), 'Both have the same size. B against A: '
    + '+0.049 nats per token. Their intervals overlap: measure on more text to tell.');
  assert.match(compared(a, { ...b, text: 'code' }), /can’t be compared: the base or the text differs\.$/);
  assert.match(compared(a, { ...a, perplexity: null }), /size\. One perplexity is not finite\.$/);
});

test('expected parameters beside those of the page', () => {
  const sentence = (...counts) => parameterCheck(...counts)
    .map((piece) => piece.number ?? piece).join('');
  assert.equal(sentence(1000, 1000), '1,000 parameters, as expected');
  assert.equal(sentence(1000, null), 'Expected 1,000 parameters; the page shows none yet');
  assert.equal(sentence(1000, 900), 'Expected 1,000 parameters; the page shows 900 (100 fewer)');
  assert.equal(sentence(1000, 1100), 'Expected 1,000 parameters; the page shows 1,100 (100 more)');
});
