// The menu of presets: a form for each, with its numbers and the size of the plan they make.
import { make } from '../dom.mjs';

const REST = 200; // milliseconds until numbers that are being typed are tried

function field(parameter) {
  const label = make('label', '', parameter.name);
  const box = make('input');
  Object.assign(box, { type: 'number', name: parameter.name, value: parameter.value, step: 1 });
  label.append(box, make('small', '', parameter.hint));
  return label;
}

function valuesOf(form) {
  const entries = [...new FormData(form)];
  return Object.fromEntries(
    entries.map(([name, value]) => [name, value === '' ? value : Number(value)]),
  );
}

// `presets` returns them as Python sends them; `apply` gets a name and its values, and `tryOut` gets
// the values of all by name: the answer goes to `showSizes`.
export function createPresetMenu(element, { presets, apply, tryOut }) {
  const menu = element.querySelector('.strip-menu');
  const button = element.querySelector('.strip-presets');
  const sheet = element.querySelector('.strip-sheet');
  let forms = new Map();
  let resting = 0;

  function formOf(preset) {
    const form = make('form', 'strip-preset');
    const fields = make('div', 'strip-fields');
    const foot = make('div', 'strip-preset-foot');
    fields.append(...preset.parameters.map(field));
    foot.append(make('output'), make('button', '', 'Apply'));
    form.append(make('b', '', preset.name), make('p', '', preset.hint), fields, foot);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      apply(preset.name, valuesOf(form));
      close();
    });
    form.addEventListener('input', () => {
      form.querySelector('output').textContent = '…';
      clearTimeout(resting);
      resting = setTimeout(tryAll, REST);
    });
    return form;
  }

  function tryAll() {
    if (sheet.hidden) return;
    tryOut(Object.fromEntries([...forms].map(([name, form]) => [name, valuesOf(form)])));
  }

  function open() {
    const offered = presets();
    if (!offered) return;
    forms = new Map(offered.map((preset) => [preset.name, formOf(preset)]));
    sheet.replaceChildren(...forms.values());
    sheet.hidden = false;
    button.setAttribute('aria-expanded', 'true');
    sheet.querySelector('input').focus();
    tryAll();
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

  return {
    close,
    get isOpen() { return !sheet.hidden; },
    showSizes(sizes) {
      for (const [name, text] of Object.entries(sizes)) {
        const form = forms.get(name);
        if (form) form.querySelector('output').textContent = text;
      }
    },
  };
}
