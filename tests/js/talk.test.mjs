// Two texts side by side: where they part, what the base finds unlikely, when they run again.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AutoRun } from '../../components/panels/talk/auto_run.mjs';
import { parting, partingText } from '../../components/panels/talk/parting.mjs';
import { cut, level } from '../../components/panels/talk/surprise.mjs';

const done = (text) => ({ text, finished: 'length' });
const running = (text) => ({ text, finished: null });

test('texts part at the first word that differs', () => {
  const parts = parting(done(' the wheelbarrow, the'), done(' the first to'));
  assert.deepEqual(parts, { word: 2, base: [5, 17], patient: [5, 10] });
  assert.equal(partingText(parts), 'differs from word 2');
  assert.equal(parting(done('one two'), done('one\n\ntwo')).word, 2);
});

test('a text that ends first parts there', () => {
  assert.deepEqual(parting(done(' a b'), done(' a')), { word: 2, base: [3, 4], patient: null });
  assert.deepEqual(parting(done(''), done(' a')), { word: 1, base: null, patient: [1, 2] });
});

test('the same text is said to be the same', () => {
  const parts = parting(done(' a b '), done(' a b'));
  assert.deepEqual(parts, { word: 0, base: null, patient: null });
  assert.equal(partingText(parts), 'same as the base');
  assert.equal(partingText(null), '');
});

test('nothing is said of words that may yet become the same', () => {
  assert.equal(parting(running(' the whe'), running(' the wheel')), null);
  assert.equal(parting(running(' the'), done(' the wheel')), null);
  assert.equal(parting(done(' a'), running(' a')), null);
  assert.equal(parting(running(' the car'), running(' the wheel')).word, 2);
  assert.equal(parting(done(' the whe'), running(' the wheel')).word, 2);
  assert.equal(parting(running(' the whe is'), running(' the wheel')).word, 2);
});

test('levels of surprise', () => {
  const nats = [0, 2.3, 2.31, 4.7, 7, null, undefined];
  assert.deepEqual(nats.map(level), [0, 0, 1, 2, 3, 3, 0]);
});

test('pieces are cut where a word begins and ends', () => {
  const pieces = [[' the', 0.1], [' fir', 5], ['st to', 2]];
  const runs = cut(pieces, [5, 10]);
  assert.equal(runs.map(({ text }) => text).join(''), ' the first to');
  assert.deepEqual(runs.filter(({ inside }) => inside), [
    { text: 'fir', nats: 5, inside: true },
    { text: 'st', nats: 2, inside: true },
  ]);
  assert.deepEqual(cut([['ab', 1]], null), [{ text: 'ab', nats: 1, inside: false }]);
  assert.deepEqual(cut([['']], null), []);
});

test('a run follows the last of several edits', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let [runs, ready] = [0, true];
  const auto = new AutoRun({ ready: () => ready, run: () => { runs += 1; } });
  auto.edited();
  t.mock.timers.tick(500);
  auto.edited();
  t.mock.timers.tick(500);
  assert.equal(runs, 0);
  t.mock.timers.tick(500);
  assert.equal(runs, 1);
  auto.consider();
  t.mock.timers.tick(5000);
  assert.equal(runs, 1);

  ready = false; // another tab is open
  auto.edited();
  t.mock.timers.tick(5000);
  assert.equal(runs, 1);
  ready = true;
  auto.consider();
  t.mock.timers.tick(1000);
  assert.equal(runs, 2);

  auto.edited();
  auto.clear();
  t.mock.timers.tick(5000);
  assert.equal(runs, 2);
});
