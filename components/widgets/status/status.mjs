// Draws a status line and its bar.

export function mount({ element, props, watch }) {
  const box = element.querySelector('.status');
  const line = box.querySelector('p');
  const bar = box.querySelector('.status-bar');

  function render() {
    const { text = '', share, failed } = props.value || {};
    box.hidden = !text;
    box.classList.toggle('failed', Boolean(failed));
    line.textContent = text;
    line.title = text;
    bar.hidden = typeof share !== 'number';
    if (bar.hidden) return;
    const percent = Math.round(100 * share);
    bar.setAttribute('aria-valuenow', percent);
    bar.firstElementChild.style.width = `${percent}%`;
  }

  watch('value', render);
  render();
}
