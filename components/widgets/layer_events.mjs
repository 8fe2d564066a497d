// How the strip and the figures tell one another which layers are hovered and selected: through
// events on the document, so that neither has to know the other. The detail is
// {strip, start, end, from}, with end left out, or null; `from` is 'strip' or 'figure'.
//
// Likewise for the tokens of a text that are selected in Talk. 'token' asks for one, with the detail
// {side, index, picked}, or null when the pointer leaves. 'costs' says which one it is, and what
// each layer is worth to it: {side, index, costs, limit, name}, or null for none.

const NAMES = {
  hover: 'layers-hover', select: 'layers-select', ask: 'layers-ask',
  token: 'token-ask', costs: 'token-costs',
};

// `kind` is 'hover', 'select', 'token', 'costs', or 'ask': what is selected, please?
export function send(kind, detail, from) {
  document.dispatchEvent(new CustomEvent(NAMES[kind], { detail: detail && { ...detail, from } }));
}

// Calls `listener` for as long as the element is on the page.
export function listen(kind, element, listener) {
  document.addEventListener(NAMES[kind], (event) => element.isConnected && listener(event.detail));
}
