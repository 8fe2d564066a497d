// Draws a status line and its bar.
const box = element.querySelector('.status');
const line = box.querySelector('p');
const bar = box.querySelector('.status-bar');

function render() {
  const value = props.value || {};
  const known = typeof value.share === 'number';
  box.hidden = !value.text;
  box.classList.toggle('failed', Boolean(value.failed));
  line.textContent = value.text || '';
  line.title = value.text || '';
  bar.hidden = !known;
  if (!known) return;
  const percent = Math.round(100 * value.share);
  bar.setAttribute('aria-valuenow', percent);
  bar.firstElementChild.style.width = `${percent}%`;
}

watch('value', render);
render();
