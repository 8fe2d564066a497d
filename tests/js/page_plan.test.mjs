// When a picture is of another base, plan or healing than the page shows.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { healingOf, outdatedSince, pageAfter } from '../../components/widgets/page_plan.mjs';

const PAGE = { spec: 'a', plan: '0:3' };

test('a picture says what has changed since', () => {
  assert.equal(outdatedSince({ ...PAGE }, PAGE), '');
  assert.equal(outdatedSince({ ...PAGE, plan: '0:2' }, PAGE), 'Outdated: the plan changed.');
  assert.equal(outdatedSince({ spec: 'b', plan: '0:3' }, PAGE), 'Outdated: the base changed.');
  assert.equal(outdatedSince({ spec: 'a' }, PAGE), ''); // of the base alone
  assert.equal(outdatedSince(undefined, PAGE), '');
  assert.equal(outdatedSince({ ...PAGE }, null), ''); // nothing is known of the page
});

test('a picture of a patient says that it was healed since', () => {
  const healed = { ...PAGE, key: 'x' };
  const now = { ...PAGE, healed };
  assert.equal(outdatedSince({ ...PAGE, healing: '' }, PAGE), '');
  assert.equal(outdatedSince({ ...PAGE, healing: '' }, now), 'Outdated: the patient was healed.');
  assert.equal(outdatedSince({ ...PAGE, healing: 'w' }, now), 'Outdated: the patient was healed.');
  assert.equal(outdatedSince({ ...PAGE, healing: 'x' }, now), '');
  assert.equal(outdatedSince({ ...PAGE }, now), ''); // of the plan, whatever its weights
  assert.equal(healingOf(healed, { spec: 'a', plan: '0:2' }), '');
});

test('a plan that was typed wrong leaves the page as it is', () => {
  assert.deepEqual(pageAfter(null, { spec: 'a', text: '0:3' }), PAGE);
  assert.equal(pageAfter(PAGE, {}), PAGE); // no base is open
  assert.deepEqual(pageAfter(PAGE, { spec: 'a', text: '0:', error: 'wrong' }), PAGE);
  assert.deepEqual(pageAfter(PAGE, { spec: 'b', text: '0:6', error: '' }), { spec: 'b', plan: '0:6' });
});
