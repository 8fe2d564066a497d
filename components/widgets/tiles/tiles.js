// Draws the numbers of base and patient. Knows how they look; Python has worded them.
const row = element.querySelector('.tiles-row');
const errorLine = element.querySelector('.tiles-error');

function make(tag, className, text) {
  const node = document.createElement(tag);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function tile(facts) {
  const box = make('div', 'tile' + (facts.changed ? ' changed' : ''));
  box.title = facts.hint;
  const name = make('div', 'tile-name', facts.name);
  const value = make('div', 'tile-value');
  if (facts.changed) {
    value.append(make('span', 'tile-before', facts.before), make('span', 'tile-arrow', '→'));
  }
  value.append(make('strong', '', facts.after), make('span', 'tile-unit', facts.unit));
  box.append(name, value, make('div', 'tile-detail', facts.detail));
  return box;
}

function bar(label, parts) {
  const line = make('div', 'parts-line');
  const track = make('div', 'parts-track');
  for (const part of parts) {
    if (!part.share) continue;
    const piece = make('span', 'part part-' + part.part);
    piece.style.width = `${100 * part.share}%`;
    piece.title = part.text;
    track.append(piece);
  }
  track.setAttribute('role', 'img');
  track.setAttribute('aria-label', `${label}: ${parts.map((part) => part.text).join(', ')}`);
  line.append(make('span', 'parts-label', label), track);
  return line;
}

function partsTile(parts) {
  const box = make('div', 'tile tile-parts');
  box.title = 'Where the parameters are. The longer bar is the larger model.';
  const legend = make('div', 'parts-legend');
  for (const entry of parts.legend) {
    const item = make('span', 'parts-entry');
    item.append(make('i', 'part part-' + entry.part), entry.text);
    legend.append(item);
  }
  box.append(make('div', 'tile-name', 'Parameters by part'));
  box.append(bar('Base', parts.base), bar('Patient', parts.patient), legend);
  return box;
}

// Whoever else shows the counts hears of them over the document.
function tell() {
  document.dispatchEvent(new CustomEvent('preview', { detail: props.value?.parameters || null }));
}

function render() {
  const value = props.value;
  tell();
  if (!value) return;
  errorLine.hidden = !value.error;
  errorLine.textContent = value.error || '';
  row.hidden = Boolean(value.error);
  if (value.error || !value.tiles) return;
  row.replaceChildren(...value.tiles.map(tile), partsTile(value.parts));
}

document.addEventListener('preview-ask', () => element.isConnected && tell());
watch('value', render);
render();
