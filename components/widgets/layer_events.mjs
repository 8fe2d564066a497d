// How the strip and the figures tell one another which layers are hovered and selected: through
// events on the document, so that neither has to know the other. The detail is
// {strip, start, end, from}, with end left out, or null; `from` is 'strip' or 'figure'.

const NAMES = { hover: 'layers-hover', select: 'layers-select', ask: 'layers-ask' };

// `kind` is 'hover', 'select', or 'ask': what is selected, please?
export function send(kind, detail, from) {
  document.dispatchEvent(new CustomEvent(NAMES[kind], { detail: detail && { ...detail, from } }));
}

// Calls `listener` for as long as the element is on the page.
export function listen(kind, element, listener) {
  document.addEventListener(NAMES[kind], (event) => element.isConnected && listener(event.detail));
}
