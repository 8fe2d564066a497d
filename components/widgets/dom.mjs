// Makes nodes of the page. Text goes onto the page as text, never as markup.

export function make(tag, className = '', text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Hands a file to the visitor; `url` may be one of a Blob.
export function download(url, name) {
  const link = make('a');
  link.href = url;
  link.download = name;
  link.click();
}

export function downloadBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  download(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export function downloadText(text, name, type) {
  downloadBlob(new Blob([text], { type }), name);
}
