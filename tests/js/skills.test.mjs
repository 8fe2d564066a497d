// Rows of skills as sentences and as CSV.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { csvRows, inWords, moved } from '../../components/panels/xray/skill_rows.mjs';

const ROW = {
  key: 'copying', items: 64, chance: 0.25, base: 0.83, base_interval: [0.72, 0.9], patient: 0.5,
  low: 0.4, high: 0.6, accuracy_change: '−33 points (−43 to −23)', margin_change: '−2.76 nats',
  verdict: 'weaker',
};

test('a row in sentences', () => {
  assert.deepEqual(inWords({ key: 'dates', chance: 0.25 }), ['Not probed yet.']);
  const { patient, ...alone } = ROW;
  assert.deepEqual(inWords(alone), [
    'Guessing: 25 %. Base: 83 % of 64 items (95 % interval 72 % to 90 %).',
  ]);
  assert.equal(inWords(ROW)[1], `Patient: ${100 * patient} %, a change of −33 points (−43 to −23).`);
});

test('rows to take away', () => {
  const [head, first, last] = csvRows({ rows: [ROW], texts: { base: 0.15, patient: null } });
  const at = (line, key) => line[head.indexOf(key)];
  assert.deepEqual(['key', 'patient', 'verdict'].map((key) => at(first, key)), ['copying', 0.5, 'weaker']);
  assert.deepEqual(['key', 'base', 'patient', 'low'].map((key) => at(last, key)), [
    'repeated_4_grams', 0.15, null, undefined,
  ]);
  assert.equal(csvRows({ rows: [ROW], texts: null }).length, 2);
});

test('what changed places', () => {
  const [a, b, added] = [{ offsetTop: 40 }, { offsetTop: 0 }, { offsetTop: 80 }];
  assert.deepEqual(moved(new Map([[a, 0], [b, 0]]), [b, a, added]), [[a, -40]]);
});
