// Figures as plain values: colours, ticks, numbers to take away, layers that are marked.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  fileName, legible, rows, thinned, transposed, withColours,
} from '../../components/widgets/plotly_view/figure_data.mjs';
import { columnsOf, frames, runs } from '../../components/widgets/plotly_view/linked_layers.mjs';

const range = (strip, start, end) => ({ strip, start, end });

test('colours of the page are filled in wherever they are named', () => {
  const value = { a: '$text', b: [{ c: '$line' }, '$unknown'], n: [1, 2], none: null };
  const colours = { text: '#000', line: '#ccc' };
  assert.deepEqual(withColours(value, colours), {
    a: '#000', b: [{ c: '#ccc' }, '$unknown'], n: [1, 2], none: null,
  });
});

test('cells that are too narrow for their words have none', () => {
  const fitted = { z: [[1, 2]], x: [0, 1], text: [['the', 'harbour']], texttemplate: '%{text}' };
  const words = { ...fitted, textfont: { size: 11 } };
  const line = { x: [0, 1], y: [1, 2] };
  assert.deepEqual(legible([words, fitted, line], 400), [words, fitted, line]);
  const drawn = legible([words, fitted, line], 60);
  assert.deepEqual(drawn, [{ ...words, texttemplate: '' }, fitted, line]);
});

test('a table that is too wide has its rows as columns', () => {
  const table = { columns: ['', 'σ', 'max'], rows: [['base', '1', '2'], ['patient', '3', '4']] };
  const turned = { columns: ['', 'base', 'patient'], rows: [['σ', '1', '3'], ['max', '2', '4']] };
  assert.deepEqual(transposed(table), turned);
  assert.deepEqual(transposed(turned), table);
});

test('ticks are thinned out with their labels', () => {
  const axis = { tickvals: [0, 1, 2, 3, 4], ticktext: ['a', 'b', 'c', 'd', 'e'] };
  assert.equal(thinned(axis, 1000, 13), axis);
  assert.deepEqual(thinned(axis, 60, 13).ticktext, ['a', 'd']);
  assert.equal(thinned(undefined, 60, 13), undefined);
});

test('a line chart as rows, without its decoration', () => {
  const figure = {
    title: 'T',
    layout: { xaxis: { title: { text: 'layer' } } },
    data: [
      { name: 'base', x: [0, 1], y: [5, null] },
      { meta: 'decoration', x: [0], y: [0] },
      { x: [2], y: [7] },
    ],
  };
  assert.deepEqual(rows(figure), [
    ['series', 'layer', 'y'], ['base', 0, 5], ['base', 1, null], ['T', 2, 7],
  ]);
});

test('a heat map as rows, cell by cell', () => {
  const figure = {
    title: 'T', layout: {}, data: [{ x: [0, 1], y: ['a'], z: [[5, 6]], customdata: [[2]] }],
  };
  assert.deepEqual(rows(figure), [['x', 'y', 'T', 'count'], [0, 'a', 5, 2], [1, 'a', 6, '']]);
});

test('files are named after the figure', () => {
  assert.equal(fileName('Weights, layer by layer (%)'), 'weights-layer-by-layer');
  assert.equal(fileName('…'), 'figure');
});

test('a column is marked for its layer of the base, and for its place in the patient', () => {
  const link = { sources: [0, 3, 3, 1] };
  assert.deepEqual(columnsOf(link, range('base', 3, 4)), [1, 2]);
  assert.deepEqual(columnsOf(link, range('patient', 3, 4)), [3]);
  assert.deepEqual(columnsOf({ ...link, strip: 'base' }, range('patient', 3, 4)), []);
  assert.deepEqual(columnsOf(link, null), []);
  assert.deepEqual(columnsOf(undefined, range('base', 0, 1)), []);
});

test('neighbours share a frame', () => {
  assert.deepEqual(runs([1, 2, 5]), [[1, 2], [5, 5]]);
  const [frame] = frames([1, 2], { width: 3 });
  assert.deepEqual([frame.x0, frame.x1, frame.line], [0.5, 2.5, { width: 3 }]);
});
