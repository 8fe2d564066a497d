// The sheet that says what is in a layer: its components, their shapes and parameters.
import { make } from '../dom.mjs';
import { integer } from '../text.mjs';
import { componentsOf, contentsInWords } from './contents.mjs';

function groupOf({ title, parameters, rows }) {
  const group = make('div', 'strip-part');
  const head = make('div', 'strip-part-head');
  head.append(make('span', '', title), make('span', '', integer(parameters)));
  group.append(head, ...rows.map((row) => {
    const node = make('div', 'strip-part-row');
    node.append(make('span', '', row.name), make('span', '', row.shape));
    return node;
  }));
  return group;
}

export function createDetails(element) {
  const sheet = element.querySelector('.strip-details');
  const title = sheet.querySelector('b');
  const line = sheet.querySelector('p');
  const list = sheet.querySelector('.strip-parts');

  return {
    sheet,
    get isOpen() { return !sheet.hidden; },

    // Opens it for a layer of the base; `where` is a line about the tile. Returns it in words.
    open(view, source, where) {
      const groups = componentsOf(view.contents, source);
      title.textContent = contentsInWords(source, groups).split(':')[0];
      line.textContent = where;
      list.replaceChildren(...groups.map(groupOf));
      sheet.setAttribute('aria-label', `What is in layer ${source}`);
      sheet.hidden = false;
      return contentsInWords(source, groups);
    },

    close() {
      sheet.hidden = true;
    },
  };
}
