// Where tiles, numbers and ribbons go.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  barHeight, gapOf, mostZoom, numbered, placeAt, ribbonPath, slotWidth,
} from '../../components/widgets/layer_strip/geometry.mjs';
import {
  describeBase, describeCost, describeEnds, describePatient, initBadge,
} from '../../components/widgets/layer_strip/describe.mjs';
import {
  componentsOf, contentsInWords, shapeText,
} from '../../components/widgets/layer_strip/contents.mjs';
import { centred, toolbarTop } from '../../components/widgets/layer_strip/placing.mjs';
import { isTyping, undoKey } from '../../components/widgets/layer_strip/undo_keys.mjs';

const upTo = (count) => Array.from({ length: count }, (_, i) => i);

test('slots fill the room, and are wide enough for a pointer or a finger', () => {
  assert.equal(slotWidth(1200, 30), 40);
  assert.equal(slotWidth(1200, 6), 200);
  assert.equal(slotWidth(700, 126), 7);
  const narrow = slotWidth(300, 30, true);
  assert.ok(narrow - gapOf(narrow) >= 24);
  assert.equal(slotWidth(300, 6, true), 50);
});

test('narrow slots can be zoomed, wide ones need not be', () => {
  assert.equal(mostZoom(28), 3);
  assert.equal(mostZoom(200), 1);
});

test('bars keep small costs visible beside large ones', () => {
  assert.equal(barHeight(8, 8), 1);
  assert.equal(barHeight(0, 8), 0);
  assert.equal(barHeight(-0.2, 8), 0);
  assert.ok(barHeight(0.04, 8) > 0.05 && barHeight(0.04, 8) < 0.2);
  assert.ok(barHeight(1.5, 8) > 3 * barHeight(0.1, 8));
  assert.equal(barHeight(-1, -1), 0); // nothing costs anything
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
  assert.deepEqual(['scale=0.50', 'identity', 'no-mlp', 'odd'].map(initBadge), ['×0.5', '= 0', '−mlp', 'odd']);
});

test('what dropping a layer costs', () => {
  const view = {
    kinds: ['', '', '', ''],
    importance: { costs: [7.632, 0.04, -0.2, null], breaking: [0, 3] },
  };
  assert.equal(describeCost(view, 0), 'without it the model breaks (+7.63 nats per token)');
  assert.equal(describeCost(view, 1), 'dropping it alone costs 0.04 nats per token');
  assert.equal(describeCost(view, 2), 'dropping it alone gains 0.20 nats per token');
  assert.equal(describeCost(view, 3), 'without it the model breaks');
  assert.equal(
    describeBase(view, 1, [1]),
    'Layer 1: at position 1 of the patient; dropping it alone costs 0.04 nats per token',
  );
  assert.equal(describeCost({ kinds: [] }, 0), '');
});

test('what stands before and after the layers', () => {
  const tied = { outside: { embedding: 28311552, norms: 576 }, per_layer_tables: 0 };
  assert.deepEqual(describeEnds(tied).map(({ text }) => text), [
    'Embedding: 28,311,552 parameters',
    'Final norm: 576 parameters',
    'Head: uses the weights of the embedding',
  ]);
  const rich = { outside: { embedding: 10, towers: 7, head: 10 }, per_layer_tables: 3 };
  const [embedding, norm, head] = describeEnds(rich);
  assert.equal(
    embedding.text,
    'Embedding: 10 parameters; 3 more for each layer; vision and audio towers: 7 parameters',
  );
  assert.equal(norm.text, 'Final norm: no parameters');
  assert.equal(head.text, 'Head: 10 parameters');
});

test('what is in a layer, the largest component first', () => {
  const part = (name, component, shape, times = 1) => ({ name, component, shape, times });
  const contents = {
    layouts: [[
      part('norm.weight', 'norms', [4]),
      part('attn.q.weight', 'attention', [4, 4]),
      part('experts.*.up.weight', 'experts', [8, 4], 16),
      part('odd', 'towers', []),
    ]],
    of: [0],
  };
  const groups = componentsOf(contents, 0);
  assert.deepEqual(
    groups.map(({ title, parameters }) => [title, parameters]),
    [['Experts', 512], ['Attention', 16], ['Norms', 4], ['Other', 1]],
  );
  assert.deepEqual(groups[0].rows, [{ name: 'experts.*.up', shape: '16 of 8 × 4' }]);
  assert.equal(shapeText(part('x', 'mlp', [49152, 576])), '49,152 × 576');
  assert.equal(
    contentsInWords(0, groups),
    'Layer 0 has 533 parameters: Experts 512, Attention 16, Norms 4, Other 1',
  );
});

test('what floats stays within the strip, at the row that is selected', () => {
  assert.equal(centred(400, 600, 300, 1000), 350);
  assert.equal(centred(0, 40, 300, 1000), 8);
  assert.equal(centred(960, 1000, 300, 1000), 692);
  const between = { top: 100, bottom: 180 };
  assert.equal(toolbarTop('base', between, 250, 34), 100);
  assert.equal(toolbarTop('patient', between, 250, 34), 146);
  assert.equal(toolbarTop('patient', { top: 100, bottom: 110 }, 250, 34), 258);
});

test('undo belongs to the plan unless a text is being typed', () => {
  const press = (key, more = {}) => undoKey({ key, ctrlKey: true, ...more });
  assert.equal(press('z'), 'undo');
  assert.equal(press('Z', { shiftKey: true }), 'redo');
  assert.equal(press('y'), 'redo');
  assert.equal(press('z', { altKey: true }), null);
  assert.equal(undoKey({ key: 'z' }), null);
  assert.equal(press('a'), null);
  assert.equal(isTyping({ tagName: 'TEXTAREA' }), true);
  assert.equal(isTyping({ tagName: 'INPUT', type: 'text' }), true);
  assert.equal(isTyping({ tagName: 'INPUT', type: 'checkbox' }), false);
  assert.equal(isTyping({ tagName: 'DIV', isContentEditable: true }), true);
  assert.equal(isTyping({ tagName: 'BODY' }), false);
});
