// Draws the numbers of base and patient, as Python has worded them.
import { make } from '../dom.mjs';
import { watchNewest } from '../newest.mjs';

function tile(facts) {
  const box = make('div', 'tile' + (facts.changed ? ' changed' : ''));
  box.title = facts.hint;
  const value = make('div', 'tile-value');
  if (facts.changed) {
    value.append(make('span', 'tile-before', facts.before), make('span', 'tile-arrow', '→'));
  }
  value.append(make('strong', '', facts.after), make('span', 'tile-unit', facts.unit));
  box.append(make('div', 'tile-name', facts.name), value, make('div', 'tile-detail', facts.detail));
  return box;
}

function bar(label, parts) {
  const line = make('div', 'parts-line');
  const track = make('div', 'parts-track');
  for (const { part, share, text } of parts) {
    if (!share) continue;
    const segment = make('span', `part part-${part}`);
    segment.style.width = `${100 * share}%`;
    segment.title = text;
    track.append(segment);
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
    item.append(make('i', `part part-${entry.part}`), entry.text);
    legend.append(item);
  }
  box.append(make('div', 'tile-name', 'Parameters by component'));
  box.append(bar('Base', parts.base), bar('Patient', parts.patient), legend);
  return box;
}

export function mount({ element, props, watch }) {
  const row = element.querySelector('.tiles-row');
  const errorLine = element.querySelector('.tiles-error');

  // Others that show the counts get them as an event of the document.
  function sendParameters() {
    const detail = props.value?.parameters || null;
    document.dispatchEvent(new CustomEvent('preview', { detail }));
  }

  // The plan that the page shows, {spec, plan}, travels the same way.
  function sendPlan() {
    const detail = props.value?.of || null;
    document.dispatchEvent(new CustomEvent('plan-shown', { detail }));
  }

  function render(value) {
    sendParameters();
    sendPlan();
    if (!value) return;
    errorLine.hidden = !value.error;
    errorLine.textContent = value.error || '';
    row.hidden = Boolean(value.error);
    if (value.error || !value.tiles) return;
    row.replaceChildren(...value.tiles.map(tile), partsTile(value.parts));
  }

  // Where it scrolls, the keys have to reach it.
  new ResizeObserver(() => {
    if (row.scrollWidth > row.clientWidth) row.tabIndex = 0;
    else row.removeAttribute('tabindex');
  }).observe(row);

  document.addEventListener('preview-ask', () => element.isConnected && sendParameters());
  document.addEventListener('plan-ask', () => element.isConnected && sendPlan());
  watchNewest({ props, watch }, 'order', render);
}
