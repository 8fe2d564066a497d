// What is taken for a recipe when it is pasted into the plan's box.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isRecipe } from '../../components/widgets/layer_strip/pasted.mjs';

test('a recipe is told from a plan', () => {
  for (const text of ['slices:\n- sources: []', '{"slices": []}', 'merge_method : slerp', 'models:']) {
    assert.ok(isRecipe(text), text);
  }
  for (const text of ['', '0:13, 17:30', 'solar m=8', '0:8, 7@identity, 8:12', 'b/8:24', '4:8*3']) {
    assert.ok(!isRecipe(text), text);
  }
});
