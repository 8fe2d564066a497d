// How small an image is made.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fitInside } from '../../components/widgets/image_file/shrink.mjs';

test('an image keeps its shape and gets no larger', () => {
  assert.deepEqual(fitInside(640, 480), { width: 640, height: 480 });
  assert.deepEqual(fitInside(4000, 3000), { width: 1024, height: 768 });
  assert.deepEqual(fitInside(300, 6000), { width: 51, height: 1024 });
  assert.deepEqual(fitInside(1, 90000), { width: 1, height: 1024 });
});
