// Which keys undo and redo, and where they belong to a text that is being typed.

const NOT_TEXT = new Set([
  'button', 'checkbox', 'color', 'file', 'radio', 'range', 'reset', 'submit',
]);

// 'undo', 'redo' or null.
export function undoKey(event) {
  if (event.altKey || !(event.ctrlKey || event.metaKey)) return null;
  const key = event.key.toLowerCase();
  if (key === 'z') return event.shiftKey ? 'redo' : 'undo';
  return key === 'y' ? 'redo' : null;
}

export function isTyping(target) {
  if (target.isContentEditable || target.tagName === 'TEXTAREA') return true;
  return target.tagName === 'INPUT' && !NOT_TEXT.has(target.type);
}
