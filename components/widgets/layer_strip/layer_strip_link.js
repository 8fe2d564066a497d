// Ties the strip to pictures of the same layers: it says what is hovered and selected, and does as
// they say. Both go over the document, so the strip knows of no picture.

let told = '';

function tellSelection(again = false) {
  const now = JSON.stringify(chosen);
  if (now === told && !again) return;
  told = now;
  const detail = chosen && { ...chosen, from: 'strip' };
  document.dispatchEvent(new CustomEvent('layers-select', { detail }));
}

for (const [strip, row] of Object.entries(rows)) {
  const tell = (detail) => document.dispatchEvent(new CustomEvent('layers-hover', { detail }));
  row.addEventListener('pointerover', (event) => {
    const layer = event.target.closest('.layer');
    const index = layer && layer.getAttribute('aria-posinset') - 1;
    tell(layer && { strip, start: index, end: index + 1, from: 'strip' });
  });
  row.addEventListener('pointerleave', () => tell(null));
}

document.addEventListener('layers-hover', (event) => {
  if (!view || event.detail?.from === 'strip' || !element.isConnected) return;
  light(event.detail ? String(view.patient[event.detail.start]?.source) : undefined);
});

document.addEventListener('layers-select', (event) => {
  const wanted = event.detail;
  if (!view || !wanted || wanted.from === 'strip' || !element.isConnected) return;
  if (wanted.end > count(wanted.strip)) return; // a picture of an older plan
  select(wanted.strip, wanted.start, wanted.end - 1);
  announce();
});

document.addEventListener('layers-ask', () => view && tellSelection(true));
