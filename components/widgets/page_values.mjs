// What the page shows, for the panels that follow it: the strip's view, the prompt and the settings
// of generation, in that order. They are sent by ../page_values.py.

// Calls `listener` with the values whenever one has changed, for as long as the element is on the
// page, and at once if they are known already.
export function followPage(element, listener) {
  function follow() {
    if (element.isConnected) listener(...window.layerSurgeryPage);
  }

  document.addEventListener('page-changed', follow);
  if (window.layerSurgeryPage) follow();
}
