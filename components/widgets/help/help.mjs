// The theme switch and the help sheet.

export function mount({ element }) {
  const dialog = element.querySelector('dialog');

  element.querySelector('.help-open').addEventListener('click', () => dialog.showModal());
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close(); // a click beside the sheet
  });
  element.querySelector('.help-theme').addEventListener('click', () => {
    document.body.classList.toggle('dark');
  });
  document.addEventListener('keydown', (event) => {
    const typing = event.target.closest?.('input, textarea, [contenteditable]');
    // Not over another sheet, which is to be closed first.
    const covered = document.querySelector('dialog:modal');
    if (event.key === '?' && !typing && !covered) dialog.showModal();
  });
}
