// What is selected on the strip, and what a request becomes with it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  commonInit, completed, contains, counterpart, fitted, inPatient, possible, range, staysPut,
  summary,
} from '../../components/widgets/layer_strip/selection.mjs';

// 0, 1, 3, 3 (half as strong), 2 of a base with four layers.
const view = {
  depth: 4,
  patient: [
    { source: 0, copy: 1, init: '' },
    { source: 1, copy: 1, init: '' },
    { source: 3, copy: 1, init: '' },
    { source: 3, copy: 2, init: 'scale=0.5' },
    { source: 2, copy: 1, init: '' },
  ],
};
const patient = (start, end) => ({ strip: 'patient', start, end });

test('a range is the same from either end', () => {
  assert.deepEqual(range('base', 3, 1), { strip: 'base', start: 1, end: 4 });
  assert.deepEqual(range('base', 1, 3), range('base', 3, 1));
});

test('an end is left out', () => {
  assert.equal(contains(patient(1, 3), 'patient', 2), true);
  assert.equal(contains(patient(1, 3), 'patient', 3), false);
  assert.equal(contains(patient(1, 3), 'base', 2), false);
  assert.equal(contains(null, 'base', 2), false);
});

test('a selection shrinks with the patient, or goes', () => {
  assert.deepEqual(fitted(patient(3, 9), view), patient(3, 5));
  assert.equal(fitted(patient(5, 9), view), null);
  assert.deepEqual(fitted({ strip: 'base', start: 2, end: 9 }, view).end, 4);
  assert.equal(fitted(null, view), null);
});

test('the summary names layers of the base', () => {
  assert.equal(summary(null, view), 'Drag over layers to select');
  assert.equal(summary(patient(4, 5), view), '1 selected: layer 2');
  assert.equal(summary(patient(1, 4), view), '3 selected: layers 1 … 3');
  assert.equal(summary({ strip: 'base', start: 1, end: 3 }, view), '2 selected: layers 1 … 2');
});

test('an initialisation is shown where all of the selected layers have it', () => {
  assert.equal(commonInit(patient(0, 3), view), 'copy');
  assert.equal(commonInit(patient(3, 4), view), 'scale=0.5');
  assert.equal(commonInit(patient(2, 4), view), '');
  assert.equal(commonInit({ strip: 'base', start: 0, end: 1 }, view), '');
});

test('from strip to strip', () => {
  assert.equal(counterpart(view, 'patient', 3), 3);
  assert.equal(counterpart(view, 'base', 1), 1);
  assert.equal(counterpart({ depth: 4, patient: view.patient.slice(0, 2) }, 'base', 3), 1);
});

test('a drag onto itself moves nothing', () => {
  for (const to of [1, 2, 3]) assert.equal(staysPut(patient(1, 3), to), true);
  for (const to of [0, 4]) assert.equal(staysPut(patient(1, 3), to), false);
  assert.equal(staysPut({ strip: 'base', start: 1, end: 3 }, 2), false);
});

test('a request gets the selection', () => {
  assert.deepEqual(completed({ op: 'drop' }, patient(1, 3), view), { op: 'drop', ...patient(1, 3) });
  assert.equal(completed({ op: 'drop' }, null, view), null);
  assert.deepEqual(completed({ op: 'undo' }, null, view), { op: 'undo' });
  assert.deepEqual(completed({ op: 'undo' }, patient(1, 3), view), { op: 'undo' });
});

test('left and right are moves by one, and stop at the ends', () => {
  const move = (op, chosen) => completed({ op }, chosen, view);
  assert.deepEqual(move('left', patient(1, 3)), { op: 'move', to: 0, ...patient(1, 3) });
  assert.deepEqual(move('right', patient(1, 3)), { op: 'move', to: 4, ...patient(1, 3) });
  assert.equal(move('left', patient(0, 2)), null);
  assert.equal(move('right', patient(4, 5)), null);
});

test('layers of the base move from where they are in the patient', () => {
  const dropped = { depth: 4, patient: [{ source: 2 }, { source: 3 }, { source: 0 }] };
  const base = (start, end) => ({ strip: 'base', start, end });
  assert.deepEqual(inPatient(base(2, 4), dropped), patient(0, 2));
  assert.equal(inPatient(base(1, 2), dropped), null); // dropped
  assert.equal(inPatient(base(3, 5), view), null); // there twice
  assert.equal(inPatient(base(0, 2), { patient: [{ source: 1 }, { source: 0 }] }), null);
  assert.deepEqual(
    completed({ op: 'right' }, base(2, 4), dropped), { op: 'move', to: 3, ...patient(0, 2) },
  );
  assert.equal(completed({ op: 'left' }, base(2, 4), dropped), null);
});

test('layers of the base are inserted by key behind the last that is not above them', () => {
  const base = (start, end) => ({ strip: 'base', start, end });
  const solar = { depth: 4, patient: [0, 1, 2, 3].map((source) => ({ source })) };
  assert.deepEqual(completed({ op: 'insert' }, base(1, 3), solar), {
    op: 'insert', to: 3, ...base(1, 3),
  });
  const cut = { depth: 4, patient: [{ source: 2 }, { source: 3 }] };
  assert.equal(completed({ op: 'insert' }, base(0, 2), cut).to, 0);
  assert.equal(completed({ op: 'insert', to: 1 }, base(0, 2), cut).to, 1); // dragged
  assert.equal(completed({ op: 'insert' }, patient(0, 1), solar), null);
  assert.equal(possible('insert', base(0, 2), cut), true);
  assert.equal(possible('insert', patient(0, 1), solar), false);
});

test('what can only fail is not possible', () => {
  const can = (chosen, state = view) => (
    ['drop', 'repeat', 'left', 'right', 'restore', 'reverse', 'initialise']
      .filter((op) => possible(op, chosen, state))
  );
  const base = (start, end) => ({ strip: 'base', start, end });
  const cut = { depth: 4, patient: [{ source: 0 }, { source: 3 }] };
  assert.deepEqual(can(null), []);
  assert.deepEqual(can(base(1, 3), cut), ['restore']); // what was dropped
  assert.deepEqual(can(patient(0, 2), cut), ['repeat', 'restore', 'reverse', 'initialise']);
  assert.deepEqual(can(patient(0, 1), cut), ['drop', 'repeat', 'right', 'restore', 'initialise']);
  assert.deepEqual(can(base(3, 4), cut), ['drop', 'repeat', 'left', 'restore', 'initialise']);
  assert.equal(possible('undo', null, { ...view, undo: true }), true);
  assert.equal(possible('redo', null, { ...view, redo: false }), false);
});
