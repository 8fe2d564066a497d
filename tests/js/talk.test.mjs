// Two texts side by side: where they part, what the base finds unlikely, when they are outdated, when
// they run again.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AutoRun } from '../../components/panels/talk/auto_run.mjs';
import { placeOf } from '../../components/panels/talk/following.mjs';
import { fieldsOf, outdated } from '../../components/panels/talk/outdated.mjs';
import { healingOf } from '../../components/widgets/page_plan.mjs';
import { parting, partingText } from '../../components/panels/talk/parting.mjs';
import { cut, level } from '../../components/panels/talk/surprise.mjs';
import {
  firstToken, layersOf, mostNeeded, shownToken, stepped, tokenFacts,
} from '../../components/panels/talk/token_layers.mjs';

const done = (text) => ({ text, finished: 'length' });
const running = (text) => ({ text, finished: null });

test('texts part at the first word that differs', () => {
  const parts = parting(done(' the wheelbarrow, the'), done(' the first to'));
  assert.deepEqual(parts, { word: 2, base: [5, 17], patient: [5, 10] });
  assert.equal(partingText(parts), 'differs at word 2');
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
    { text: 'fir', nats: 5, inside: true, piece: 1 },
    { text: 'st', nats: 2, inside: true, piece: 2 },
  ]);
  assert.deepEqual(cut([['ab', 1]], null), [{ text: 'ab', nats: 1, inside: false, piece: 0 }]);
  assert.deepEqual(cut([['']], null), []);
});

const fields = {
  prompt: 'Hi', greedy: true, chat: false, tokens: 64, seed: 0, temperature: 0.8, top_p: 0.95,
};
const made = { spec: 'a', plan: '0:3', healing: '', fields };
const since = (changes, fieldChanges = {}) => (
  { ...made, ...changes, fields: { ...fields, ...fieldChanges } }
);

test('a text says what has changed since', () => {
  assert.equal(outdated('patient', made, since({})), '');
  assert.equal(outdated('patient', made, since({ plan: '0:2' })), 'Outdated: the plan changed.');
  assert.equal(
    outdated('patient', made, since({ plan: '0:2' }, { prompt: 'Ho', tokens: 8 })),
    'Outdated: the plan, the prompt and the length changed.',
  );
  for (const name of ['base', 'patient']) {
    assert.equal(outdated(name, made, since({ spec: 'b' })), 'Outdated: the base changed.');
    assert.equal(
      outdated(name, made, since({}, { greedy: false, seed: 1 })),
      'Outdated: the decoding method and the seed changed.',
    );
    assert.equal(
      outdated(name, made, since({}, { chat: true })),
      'Outdated: the use of the chat template changed.',
    );
  }
  assert.equal(outdated('base', made, since({ plan: '0:2', healing: 'x' })), '');
});

test('what greedy decoding does not use changes nothing', () => {
  const others = { seed: 3, temperature: 1, top_p: 0.5 };
  assert.equal(outdated('base', made, since({}, others)), '');
  const random = since({}, { greedy: false });
  assert.match(outdated('base', random, since({}, { ...others, greedy: false })), /top-p/);
});

test('a text says that the patient was healed since', () => {
  const healed = { spec: 'a', plan: '0:3', key: 'x' };
  assert.equal(healingOf(healed, made), 'x');
  assert.equal(healingOf(healed, since({ plan: '0:2' })), '');
  assert.equal(healingOf(null, made), '');
  const now = since({ healing: 'x' }, { tokens: 8 });
  assert.equal(
    outdated('patient', made, now), 'Outdated: the length changed, and the patient was healed.',
  );
  assert.equal(
    outdated('patient', since({ healing: 'x' }), made),
    'Outdated: the patient is no longer healed.',
  );
  assert.equal(outdated('patient', made, since({ plan: '0:2', healing: 'x' })), 'Outdated: the plan changed.');
});

test('a mark is shown from the beginning, or from the line before it', () => {
  assert.equal(placeOf({ top: 40, bottom: 64 }, 96, 24), 0);
  assert.equal(placeOf({ top: 120, bottom: 144 }, 96, 24), 96);
  assert.equal(placeOf({ top: 10, bottom: 130 }, 96, 24), 0);
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
  t.mock.timers.tick(5000);
  assert.equal(runs, 1);

  ready = false; // another tab is open
  auto.edited();
  t.mock.timers.tick(5000);
  assert.equal(runs, 1);
  ready = true;
  t.mock.timers.tick(1000);
  assert.equal(runs, 2);

  auto.edited();
  auto.clear();
  t.mock.timers.tick(5000);
  assert.equal(runs, 2);
});

test('a run waits for the first number of quality, not for ever', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let runs = 0;
  const auto = new AutoRun({ ready: () => true, run: () => { runs += 1; } });
  auto.measuring(true);
  auto.edited();
  t.mock.timers.tick(1000);
  assert.equal(runs, 0);
  auto.measuring(false);
  assert.equal(runs, 1);
  t.mock.timers.tick(5000);
  assert.equal(runs, 1);

  auto.measuring(true);
  auto.edited();
  auto.measuring(false); // within the pause, which ends first
  assert.equal(runs, 1);
  t.mock.timers.tick(1000);
  assert.equal(runs, 2);

  auto.measuring(true);
  auto.edited();
  t.mock.timers.tick(1000);
  t.mock.timers.tick(2000);
  assert.equal(runs, 2);
  t.mock.timers.tick(1000);
  assert.equal(runs, 3);
  auto.measuring(false);
  assert.equal(runs, 3);

  auto.measuring(true);
  auto.edited();
  t.mock.timers.tick(1000);
  auto.clear();
  auto.measuring(false);
  t.mock.timers.tick(5000);
  assert.equal(runs, 3);
});

const side = {
  pieces: [' the', '\n', ' end'],
  nll: [Math.log(2), 1, null],
  sources: [0, 1, 3],
  costs: [[0.5, -1, 2], [3, null, -0.25], [1.25, -2, 7]],
};

test('the layers that a token needs most', () => {
  assert.deepEqual(mostNeeded(side, 0, 2), [
    { layer: 1, position: 1, cost: 3 }, { layer: 3, position: 2, cost: 1.25 },
  ]);
  assert.equal(tokenFacts(side, 0), '“the”, probability 50 %. Layers that it needs most, in nats: '
    + '1 (+3.00), 3 at 2 (+1.25), 0 (+0.50).');
  assert.match(tokenFacts(side, 1), /^“⏎”.*: 0 \(−1\.00\), 3 at 2 \(−2\.00\)\.$/);
  assert.match(tokenFacts({ ...side, costs: [[null]] }, 0), /not measured/);
  assert.equal(layersOf({}), null);
  assert.equal(layersOf({ layers: '{"limit":2}' }).limit, 2);
});

test('every token can be seen, and keys lead to it', () => {
  assert.deepEqual([' a', '  ', '\n\n'].map(shownToken), ['a', '␣␣', '⏎⏎']);
  const keys = ['ArrowRight', 'ArrowLeft', 'End', 'Home', 'ArrowDown', 'Enter'];
  assert.deepEqual(keys.map((key) => stepped(key, 0, 3)), [1, 0, 2, 0, 2, null]);
});

test('the first token is the one where the texts part', () => {
  assert.equal(firstToken(side.pieces, [5, 8]), 2);
  assert.equal(firstToken(side.pieces, [1, 4]), 0);
  assert.equal(firstToken(side.pieces, null), 0);
  assert.equal(firstToken(side.pieces, [90, 91]), 0);
});

test('of an image, the page compares which one it is', () => {
  const values = ['Hi', true, false, 64, 0, 0.8, 0.95];
  assert.equal(fieldsOf(values).image, '');
  const pictured = { spec: 'a', plan: '0:6', fields: fieldsOf([...values, { id: 'x', data: 'long' }]) };
  assert.deepEqual(pictured.fields, {
    prompt: 'Hi', greedy: true, chat: false, tokens: 64, seed: 0, temperature: 0.8, top_p: 0.95,
    image: 'x',
  });
  const now = { ...pictured, fields: fieldsOf([...values, {}]) };
  assert.equal(outdated('base', pictured, now), 'Outdated: the image changed.');
});
