// Answers that overtake one another: the newest stays.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isLate, watchNewest } from '../../components/widgets/newest.mjs';

test('of two answers the one with the higher revision is newer', () => {
  assert.ok(isLate({ revision: 1 }, { revision: 2 }));
  assert.ok(!isLate({ revision: 2 }, { revision: 2 }));
  assert.ok(!isLate({ revision: 1 }, null));
  assert.ok(!isLate(null, { revision: 2 }));
  assert.ok(!isLate({ opening: 'bundled' }, { revision: 2 })); // a value of no session
});

test('a late answer is not drawn, and the newest takes its place', () => {
  const props = { value: { revision: 1 } };
  const drawn = [];
  let arrived = null;
  watchNewest({ props, watch: (_, callback) => { arrived = callback; } }, (x) => drawn.push(x));
  const newest = { revision: 3 };
  for (const value of [newest, { revision: 2 }, {}]) {
    props.value = value;
    arrived();
  }
  assert.deepEqual(drawn, [{ revision: 1 }, newest, {}]);
  props.value = { revision: 2 };
  arrived();
  assert.equal(props.value, newest);
  assert.equal(drawn.length, 3);
});
