// Edits go one at a time, in order, and act on what the edits before them left.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EditQueue } from '../../components/widgets/layer_strip/edit_queue.mjs';

function queueWith(complete = (request) => request) {
  const log = { sent: [], gaveUp: 0 };
  const queue = new EditQueue({
    complete,
    send: (request) => log.sent.push(request),
    giveUp: () => { log.gaveUp += 1; },
  });
  return { queue, log };
}

test('the second waits for the answer to the first', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { queue, log } = queueWith();
  queue.ask('a');
  queue.ask('b');
  assert.deepEqual(log.sent, ['a']);
  queue.advance();
  assert.deepEqual(log.sent, ['a']);
  queue.answered();
  queue.advance();
  assert.deepEqual(log.sent, ['a', 'b']);
});

test('a request is completed when it is sent, not when it is asked for', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let selection = 1;
  const { queue, log } = queueWith((op) => ({ op, selection }));
  queue.ask('drop');
  queue.ask('drop');
  selection = 2;
  queue.answered();
  queue.advance();
  assert.deepEqual(log.sent, [{ op: 'drop', selection: 1 }, { op: 'drop', selection: 2 }]);
});

test('what there is nothing to do for is passed over', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { queue, log } = queueWith((op) => (op === 'nothing' ? null : op));
  queue.ask('nothing');
  queue.ask('a');
  queue.ask('nothing');
  queue.ask('b');
  queue.answered();
  queue.advance();
  assert.deepEqual(log.sent, ['a', 'b']);
});

test('without an answer it gives up what waits, once, and goes on', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { queue, log } = queueWith();
  queue.ask('a');
  queue.ask('b');
  t.mock.timers.tick(19_999);
  assert.equal(log.gaveUp, 0);
  t.mock.timers.tick(1);
  assert.equal(log.gaveUp, 1);
  queue.advance();
  assert.deepEqual(log.sent, ['a']);
  queue.ask('c');
  assert.deepEqual(log.sent, ['a', 'c']);
});

test('an answer in time keeps it from giving up', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { queue, log } = queueWith();
  queue.ask('a');
  queue.answered();
  t.mock.timers.tick(60_000);
  assert.equal(log.gaveUp, 0);
});

test('a selection made after the edit was asked for is newer, one made before is not', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { queue } = queueWith();
  assert.equal(queue.selectionIsNewer, false);
  queue.selectionChanged();
  queue.ask('a');
  assert.equal(queue.selectionIsNewer, false);
  queue.selectionChanged();
  assert.equal(queue.selectionIsNewer, true);
  queue.answered();
  queue.ask('b');
  assert.equal(queue.selectionIsNewer, false);
});

test('an edit that waited counts from when it was asked for', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { queue } = queueWith();
  queue.ask('a');
  queue.ask('b');
  queue.selectionChanged();
  queue.answered();
  queue.advance(); // sends b, asked for before the selection
  assert.equal(queue.selectionIsNewer, true);
});

test('an answer is told from others by the edit that it answers', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { queue } = queueWith();
  assert.equal(queue.answered(), null);
  queue.ask({ op: 'undo' });
  queue.ask({ op: 'write' });
  assert.deepEqual([queue.has('undo'), queue.has('write'), queue.has('drop')], [true, true, false]);
  assert.deepEqual(queue.answered(), { op: 'undo' });
  assert.equal(queue.has('undo'), false);
  queue.advance();
  assert.deepEqual(queue.answered(), { op: 'write' });
  assert.equal(queue.has('write'), false);
});
