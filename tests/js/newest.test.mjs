// Answers that overtake one another: the newest stays.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { watchNewest } from '../../components/widgets/newest.mjs';

test('a late answer is not drawn, and the newest takes its place', () => {
  const props = { value: { revision: 1 } };
  const drawn = [];
  let arrived = null;
  const watch = (_, callback) => { arrived = callback; };
  watchNewest({ props, watch }, 'revision', (x) => drawn.push(x));
  const newest = { revision: 3 };
  for (const value of [newest, { revision: 2 }, {}, { revision: 3 }]) {
    props.value = value;
    arrived();
  }
  assert.deepEqual(drawn, [{ revision: 1 }, newest, {}, { revision: 3 }]);
  props.value = { revision: 2 };
  arrived();
  assert.deepEqual(props.value, newest);
  assert.equal(drawn.length, 4);
});
