// Reads a file that was chosen or dropped here; its name goes onto the page as text alone.
const box = element.querySelector('.text-file');
const input = box.querySelector('input');
const line = box.querySelector('p');

function bytes(size) {
  if (size < 1000) return `${size} bytes`;
  return size < 1e6 ? `${(size / 1e3).toFixed(1)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

function render() {
  const { name, size, wrong, most } = props.value || {};
  box.classList.toggle('failed', Boolean(wrong));
  line.textContent = wrong || (name ? `${name}, ${bytes(size)}`
    : `Plain text in UTF-8, or JSON Lines with a column called text; up to ${bytes(most)}. Or drop it here.`);
}

function keep(found) {
  const { most } = props.value || {};
  props.value = { most, ...found };
  render();
}

async function read(file) {
  if (!file) return;
  const { most } = props.value || {};
  if (file.size > most) {
    keep({ wrong: `${file.name} has ${bytes(file.size)}, and ${bytes(most)} are allowed here: choose a smaller file.` });
    return;
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer());
    if (text.trim()) keep({ name: file.name, size: file.size, text });
    else keep({ wrong: `${file.name} is empty: choose one with a few pages of text.` });
  } catch (error) {
    keep({ wrong: error instanceof TypeError ? `${file.name} is no text in UTF-8.` : `${file.name} can't be read.` });
  }
}

input.addEventListener('change', () => {
  read(input.files[0]);
  input.value = ''; // so that the same file, changed meanwhile, can be chosen again
});

for (const kind of ['dragover', 'drop']) {
  box.addEventListener(kind, (event) => {
    event.preventDefault();
    if (kind === 'drop') read(event.dataTransfer.files[0]);
  });
}

watch('value', render);
render();
