// Reads an image that is chosen or dropped here, and makes it small enough to travel with a request.
import { onFile } from '../chosen_file.mjs';
import { fitInside, QUALITIES } from './shrink.mjs';

const OFFER = 'For both models, with the prompt. You can also drop one here.';
const MOST = 600_000; // characters of a data URL: a request holds a million bytes

// On white, since a JPEG can't be transparent.
function drawn(image) {
  const canvas = document.createElement('canvas');
  Object.assign(canvas, fitInside(image.width, image.height));
  const context = canvas.getContext('2d');
  context.fillStyle = 'white';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

export function mount({ element, props, watch }) {
  const box = element.querySelector('.image-file');
  const input = box.querySelector('input');
  const label = box.querySelector('.image-file-choose span');
  const picture = box.querySelector('img');
  const remove = box.querySelector('.image-file-remove');
  const line = box.querySelector('p');

  function render() {
    const { name, data, wrong } = props.value || {};
    box.classList.toggle('failed', Boolean(wrong));
    picture.hidden = !data;
    remove.hidden = !data;
    if (data) picture.src = data;
    else picture.removeAttribute('src');
    picture.alt = data ? `The image of the prompt: ${name}` : '';
    label.textContent = data ? 'Change' : 'Add an image';
    line.textContent = wrong || name || OFFER;
  }

  function keep(value) {
    props.value = value;
    render();
  }

  async function read(file) {
    if (!file) return;
    try {
      const image = await createImageBitmap(file);
      const canvas = drawn(image);
      image.close();
      const data = QUALITIES.map((quality) => canvas.toDataURL('image/jpeg', quality))
        .find((url) => url.length <= MOST);
      if (!data) keep({ wrong: `${file.name} is too detailed: choose a smaller image.` });
      else keep({ id: Math.random().toString(36).slice(2), name: file.name, data });
    } catch {
      keep({ wrong: `${file.name} can’t be read as an image: choose a PNG, JPEG or WebP file.` });
    }
  }

  onFile(box, input, read);
  remove.addEventListener('click', () => {
    keep({});
    input.focus();
  });

  watch('value', render);
  render();
}
