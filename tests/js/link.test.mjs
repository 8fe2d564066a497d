// The page's state in its address, and the last plans in the browser.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  defaults, plain, query, queryFor, read,
} from '../../components/panels/link/address.mjs';
import { RecentPlans } from '../../components/panels/link/recent_plans.mjs';
import { stepIn, withStep } from '../../components/panels/lesson/lesson_address.mjs';

const view = { spec: 'org/model', text: '0:13, 17:30', whole: false, error: '' };
const settings = (values) => new Map(Object.entries(values));

test('a plan is written so that it can be read back', () => {
  const search = queryFor(view, settings({ prompt: 'Salt & pepper, 100 %+' }), new Map(), '');
  assert.equal(read(search, 'base'), 'org/model');
  assert.equal(read(search, 'plan'), '0:13, 17:30');
  assert.equal(read(search, 'prompt'), 'Salt & pepper, 100 %+');
  assert.ok(!/[ &]pepper/.test(search));
});

test('parameters of others stay, letter for letter', () => {
  const search = query(settings({ base: 'a' }), '?mine=%20x&plan=0:3&lesson=2&flag');
  assert.equal(search, '?base=a&mine=%20x&lesson=2&flag');
});

test('nothing is written for the whole model with the settings it starts with', () => {
  const initial = settings({ seed: '0', greedy: '1' });
  const whole = { ...view, whole: true };
  assert.equal(queryFor(whole, initial, initial, ''), '?base=org%2Fmodel');
  const changed = settings({ seed: '7', greedy: '1' });
  assert.equal(queryFor(whole, changed, initial, ''), '?base=org%2Fmodel&seed=7');
});

test('a setting that the link gave is written even if it is unchanged', () => {
  const found = defaults(settings({ seed: '7', tokens: '64' }), '?seed=7');
  assert.deepEqual([...found], [['tokens', '64']]);
});

test('a wrong plan stays in the address as it was', () => {
  const wrong = { ...view, text: 'nonsense', error: 'no' };
  assert.equal(read(queryFor(wrong, new Map(), new Map(), '?plan=0:3'), 'plan'), '0:3');
  assert.equal(read(queryFor(wrong, new Map(), new Map(), ''), 'plan'), null);
});

test('a prompt that is too long is left out, the rest is kept', () => {
  const search = queryFor(view, settings({ prompt: 'x'.repeat(7000), seed: '3' }), new Map(), '');
  assert.equal(read(search, 'prompt'), null);
  assert.equal(read(search, 'plan'), '0:13, 17:30');
  assert.equal(read(search, 'seed'), '3');
});

test('settings as text', () => {
  assert.deepEqual([true, false, 0.5, null].map(plain), ['1', '0', '0.5', '']);
});

function memory(start) {
  const values = new Map(start);
  return {
    getItem: (key) => values.get(key) ?? null,
    setItem: (key, value) => values.set(key, value),
    removeItem: (key) => values.delete(key),
  };
}

test('the last plans: newest first, each once, twelve at most', () => {
  const storage = memory();
  const recent = new RecentPlans(() => storage);
  for (let i = 1; i <= 14; i += 1) recent.add('a', `0:${i}`);
  recent.add('a', '0:10');
  const plans = recent.list().map(({ plan }) => plan);
  assert.equal(plans.length, 12);
  assert.deepEqual(plans.slice(0, 3), ['0:10', '0:14', '0:13']);
  recent.clear();
  assert.deepEqual(recent.list(), []);
});

test('storage that is switched off, full or filled by others is no error', () => {
  const off = new RecentPlans(() => { throw new Error('SecurityError'); });
  off.add('a', '0:1');
  assert.deepEqual(off.list(), []);
  for (const text of ['{', '{}', '[1, null, {"base": 1}]']) {
    const storage = memory([['layer-surgery-plans', text]]);
    assert.deepEqual(new RecentPlans(() => storage).list(), []);
  }
});

test('the step of the lesson in the address', () => {
  assert.equal(stepIn('?lesson=3', 8), 2);
  for (const search of ['', '?lesson=0', '?lesson=9', '?lesson=x', '?lesson=1.5']) {
    assert.equal(stepIn(search, 8), null);
  }
  assert.equal(withStep('?a=%20&lesson=1&lessons=2', 4), '?a=%20&lessons=2&lesson=5');
  assert.equal(withStep('?lesson=4', null), '');
});
