// A value is shown as a plan's own only while the page shows that plan.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDue, isOf, shownAs } from '../../components/panels/quality/shown.mjs';

const plan = { spec: 'bundled', plan: '0:29' };
const value = {
  of: plan, text: 'prose', name: 'Quality', value: '+0.05', unit: 'nats per token', mark: 'random layer dropped',
  message: '', busy: false, button: false,
};

test('the plan on the page has its value', () => {
  assert.ok(isOf(value, { ...plan }));
  const shown = shownAs(value, { ...plan }, 'prose');
  assert.equal(shown.value, '+0.05');
  assert.equal(shown.stale, false);
});

test('the value of another plan is greyed and names its plan', () => {
  const shown = shownAs({ ...value, button: true }, { ...plan, plan: '0:28' }, 'prose');
  assert.equal(shown.stale, true);
  assert.equal(shown.message, 'for plan 0:29');
  assert.equal(shown.mark, '');
  assert.equal(shown.button, false);
  assert.equal(shown.busy, true);
});

test('a value of another base is gone, and so is a remark about another plan', () => {
  assert.equal(shownAs(value, { spec: 'other', plan: '0:29' }, 'prose').value, '');
  const remark = { ...value, value: '', message: 'It can not be operated.' };
  assert.equal(shownAs(remark, { ...plan, plan: '0:28' }, 'prose').message, '');
});

test('a value on another text is gone', () => {
  assert.equal(shownAs(value, plan, 'code').value, '');
});

test('nothing is shown before anything is known', () => {
  assert.equal(shownAs({}, plan, 'prose').busy, true);
  assert.equal(shownAs(undefined, null, 'prose').busy, false);
});

test('a number is due until there is one of the plan, or a reason why not', () => {
  const due = (...shown) => isDue(shownAs(...shown));
  assert.ok(due({}, plan, 'prose'));
  assert.ok(due(value, { ...plan, plan: '0:28' }, 'prose'));
  assert.ok(due({ ...value, value: '', busy: true }, plan, 'prose'));
  assert.ok(!due({ ...value, busy: true }, plan, 'prose')); // it is being refined
  assert.ok(!due({ ...value, value: '', button: true }, plan, 'prose'));
  assert.ok(!due(undefined, null, 'prose'));
});
