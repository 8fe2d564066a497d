// The menu of presets: a form for each, with its numbers.
import { make } from '../dom.mjs';

function field(parameter) {
  const label = make('label', '', parameter.name);
  label.title = parameter.hint;
  const box = make('input');
  Object.assign(box, { type: 'number', name: parameter.name, value: parameter.value, step: 1 });
  label.append(box);
  return label;
}

// `presets` returns them as Python sends them; `apply` gets a name and the values.
export function createPresetMenu(element, presets, apply) {
  const menu = element.querySelector('.strip-menu');
  const button = element.querySelector('.strip-presets');
  const sheet = element.querySelector('.strip-sheet');

  function form(preset) {
    const node = make('form', 'strip-preset');
    const fields = make('div', 'strip-fields');
    fields.append(...preset.parameters.map(field), make('button', '', 'Apply'));
    node.append(make('b', '', preset.name), make('p', '', preset.hint), fields);
    node.addEventListener('submit', (event) => {
      event.preventDefault();
      const entries = [...new FormData(node)];
      apply(preset.name, Object.fromEntries(
        entries.map(([name, value]) => [name, value === '' ? value : Number(value)]),
      ));
      close();
    });
    return node;
  }

  function open() {
    const offered = presets();
    if (!offered) return;
    sheet.replaceChildren(...offered.map(form));
    sheet.hidden = false;
    button.setAttribute('aria-expanded', 'true');
    sheet.querySelector('input').focus();
  }

  function close() {
    if (sheet.hidden) return;
    const inside = sheet.contains(document.activeElement);
    sheet.hidden = true;
    button.setAttribute('aria-expanded', 'false');
    if (inside) button.focus();
  }

  button.addEventListener('click', () => (sheet.hidden ? open() : close()));
  sheet.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') close();
    event.stopPropagation();
  });
  document.addEventListener('pointerdown', (event) => {
    if (!menu.contains(event.target)) close();
  });

  return { close, get isOpen() { return !sheet.hidden; } };
}
