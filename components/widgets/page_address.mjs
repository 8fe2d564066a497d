// The query of the page's address, which plan, settings and lesson write into it. Figures refer to
// parts of themselves by the whole address, so they are told when it changes.

export function writeQuery(search) {
  if (search === location.search) return;
  history.replaceState(history.state, '', location.pathname + search + location.hash);
  document.dispatchEvent(new CustomEvent('address-changed'));
}

// The address without its fragment, as plotly.js puts it before its references.
export function currentAddress() {
  return location.href.split('#')[0];
}

// Calls `listener` whenever the address has changed, for as long as the element is on the page.
export function followAddress(element, listener) {
  document.addEventListener('address-changed', () => element.isConnected && listener());
}
