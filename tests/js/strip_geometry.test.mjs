// Where tiles, numbers and ribbons go.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  numbered, placeAt, ribbonPath, slotWidth,
} from '../../components/widgets/layer_strip/geometry.mjs';
import {
  describeBase, describePatient, initBadge,
} from '../../components/widgets/layer_strip/describe.mjs';

const upTo = (count) => Array.from({ length: count }, (_, i) => i);

test('slots fill the room, within limits', () => {
  assert.equal(slotWidth(1200, 30), 40);
  assert.equal(slotWidth(1200, 2), 112);
  assert.equal(slotWidth(300, 126), 7);
});

test('a pointer beside the strip counts as at its end', () => {
  assert.deepEqual(placeAt(95, 40, 5), { index: 2, between: 2 });
  assert.deepEqual(placeAt(105, 40, 5), { index: 2, between: 3 });
  assert.deepEqual(placeAt(-30, 40, 5), { index: 0, between: 0 });
  assert.deepEqual(placeAt(999, 40, 5), { index: 4, between: 5 });
});

test('wide tiles are all numbered, and numbers never overlap', () => {
  assert.deepEqual([...numbered(upTo(6), 40)], upTo(6));
  for (const slot of [7, 9, 13, 24, 29, 31]) {
    const need = Math.ceil((slot < 30 ? 20 : 24) / slot);
    const shown = [...numbered([...upTo(20), ...upTo(60)], slot)].toSorted((a, b) => a - b);
    assert.ok(shown.length > 3);
    shown.slice(1).forEach((p, i) => assert.ok(p - shown[i] >= need));
  }
});

test('where the order breaks there is a number', () => {
  const sources = [...upTo(13), ...upTo(30).slice(17)];
  const shown = numbered(sources, 10);
  assert.ok(shown.has(0) && shown.has(13));
});

test('a ribbon joins both tiles', () => {
  assert.equal(ribbonPath(0, 40, 10, 60), 'M0,0 C0,30 40,30 40,60 H50 C50,30 10,30 10,0 Z');
});

test('layers in words', () => {
  const view = { kinds: ['', 'sliding'] };
  assert.equal(describeBase(view, 0, []), 'Layer 0: dropped');
  assert.equal(describeBase(view, 1, [4]), 'Layer 1, sliding: at position 4 of the patient');
  assert.equal(
    describeBase(view, 0, [0, 2]), 'Layer 0: 2 times in the patient, at positions 0, 2',
  );
  assert.equal(
    describePatient(view, { source: 1, copy: 2, init: 'scale=0.5' }, 3),
    'Position 3: layer 1, sliding, repeat 1, initialised as scale 0.5',
  );
  assert.deepEqual(['scale=0.50', 'identity', 'odd'].map(initBadge), ['×0.5', '= 0', 'odd']);
});
