// The rows of tasks in the Log.
import assert from 'node:assert/strict';
import test from 'node:test';
import { taskCells } from '../../components/panels/log/rows.mjs';

test('a score stands over its error, and the verdict beside it', () => {
  const task = {
    task: 'piqa', metric: 'acc', items: '', base: '0.672 ± 0.021', patient: '0.5',
    difference: '−0.172 ± 0.015', verdict: 'worse',
  };
  assert.deepEqual(taskCells(task), [
    ['piqa', 'acc'], ['0.672', '± 0.021'], ['0.5', ''], ['−0.172', '± 0.015, worse'],
  ]);
  const unknown = taskCells({ ...task, verdict: '', items: 'first 9 items' });
  assert.deepEqual([unknown[0][1], unknown[3][1]], ['acc, first 9 items', '± 0.015']);
});
