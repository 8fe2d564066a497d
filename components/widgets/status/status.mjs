// Draws a status line and its bar. It keeps to its room: the rest of a long text is shown on demand.

export function mount({ element, props, watch }) {
  const box = element.querySelector('.status');
  const line = box.querySelector('p');
  const more = box.querySelector('.status-more');
  const bar = box.querySelector('.status-bar');

  function open(whole) {
    box.classList.toggle('whole', whole);
    more.textContent = whole ? 'Less' : 'More';
    more.setAttribute('aria-expanded', whole);
  }

  function fit() {
    if (box.classList.contains('whole')) return;
    more.hidden = line.scrollHeight <= line.clientHeight + 1;
  }

  function render() {
    const { text = '', share, failed } = props.value || {};
    box.hidden = !text;
    box.classList.toggle('failed', Boolean(failed));
    if (line.textContent !== text) open(false);
    line.textContent = text;
    line.title = text;
    fit();
    bar.hidden = typeof share !== 'number';
    if (bar.hidden) return;
    const percent = Math.round(100 * share);
    bar.setAttribute('aria-valuenow', percent);
    bar.firstElementChild.style.width = `${percent}%`;
  }

  more.addEventListener('click', () => {
    open(more.textContent === 'More');
    fit();
  });
  box.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') open(false);
  });
  new ResizeObserver(fit).observe(line);
  watch('value', render);
  render();
}
