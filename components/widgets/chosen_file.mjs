// Hands over a file that is chosen with an input, or dropped onto the box around it.

export function onFile(box, input, read) {
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
}
