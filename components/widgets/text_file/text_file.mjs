// Reads a file that is chosen or dropped here; its name goes onto the page as text alone.
import { onFile } from '../chosen_file.mjs';
import { bytes } from '../text.mjs';

export function mount({ element, props, watch }) {
  const box = element.querySelector('.text-file');
  const input = box.querySelector('input');
  const line = box.querySelector('p');

  function render() {
    const { name, size, wrong, most } = props.value || {};
    const offer = 'Plain text in UTF-8, or JSON Lines with a column of text; '
      + `up to ${bytes(most)}. You can also drop a file here.`;
    box.classList.toggle('failed', Boolean(wrong));
    line.textContent = wrong || (name ? `${name}, ${bytes(size)}` : offer);
  }

  function keep(result) {
    props.value = { most: props.value?.most, ...result };
    render();
  }

  async function read(file) {
    if (!file) return;
    const most = props.value?.most;
    if (file.size > most) {
      keep({ wrong: `${file.name} has ${bytes(file.size)}; the limit is ${bytes(most)}.` });
      return;
    }
    try {
      const text = new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer());
      if (text.trim()) keep({ name: file.name, size: file.size, text });
      else keep({ wrong: `${file.name} is empty: choose one with a few pages of text.` });
    } catch (error) {
      const reason = error instanceof TypeError ? 'is not text in UTF-8' : 'can’t be read';
      keep({ wrong: `${file.name} ${reason}.` });
    }
  }

  onFile(box, input, read);
  watch('value', render);
  render();
}
