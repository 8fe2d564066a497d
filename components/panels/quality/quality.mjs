// Shows what a plan costs, and has each plan measured that the page shows. A value is drawn as the
// plan's own only while the page shows that plan.

import { watchNewest } from '../../widgets/newest.mjs';
import { isDue, isOf, shownAs } from './shown.mjs';

const PAUSE = 150; // milliseconds without another edit until a plan is measured
const percent = (share) => `${100 * share}%`;

export function mount({ element, trigger, props, watch }) {
  const box = element.querySelector('.quality');
  const find = (selector) => box.querySelector(selector);
  const text = find('select');
  const button = find('.quality-measure');
  const stop = find('.quality-stop');
  const scale = find('.quality-scale');
  let plan = null; // {spec, plan} that the page shows
  let value = null; // of the latest request
  let timer = 0;
  let due = false; // the first number of the plan that is shown

  function drawBar(bar) {
    scale.hidden = !bar;
    if (!bar) return;
    find('.quality-fill').style.width = percent(bar.value);
    const interval = find('.quality-interval').style;
    interval.left = percent(bar.low);
    interval.width = percent(bar.high - bar.low);
    const mark = find('.quality-bar i');
    mark.hidden = bar.random === null;
    mark.style.left = percent(bar.random || 0);
  }

  function arrived(next) {
    value = next;
    render();
  }

  function render() {
    const shown = shownAs(value, plan, text.value);
    box.hidden = !plan;
    box.dataset.plan = value?.of?.plan || '';
    box.dataset.tone = shown.tone;
    box.classList.toggle('stale', shown.stale);
    box.classList.toggle('failed', shown.failed);
    box.setAttribute('aria-busy', String(shown.busy));
    find('.tile-name').textContent = shown.name;
    find('.tile-value').hidden = !shown.value;
    find('strong').textContent = shown.value;
    find('.tile-unit').textContent = shown.unit;
    find('.quality-range').textContent = shown.range;
    find('.quality-message').textContent = shown.message;
    find('.quality-message').title = shown.message;
    find('.tile-detail').textContent = shown.detail;
    find('.quality-mark').textContent = shown.mark;
    drawBar(shown.bar);
    button.hidden = !shown.button;
    stop.hidden = shown.repair !== 'stop';
    tellIfDue(shown);
  }

  function tellIfDue(shown) {
    const before = due;
    due = isDue(shown);
    if (due !== before) document.dispatchEvent(new CustomEvent('quality-due', { detail: due }));
  }

  function measure(pause, pressed = false) {
    clearTimeout(timer);
    timer = setTimeout(() => trigger('measure', { text: text.value, pressed }), pause);
  }

  document.addEventListener('plan-shown', ({ detail }) => {
    if (!element.isConnected || !detail || isOf({ of: detail }, plan)) return;
    plan = detail;
    render();
    measure(PAUSE);
  });
  text.addEventListener('change', () => {
    render();
    measure(0);
  });
  button.addEventListener('click', () => {
    button.hidden = true;
    box.setAttribute('aria-busy', 'true');
    measure(0, true);
  });
  document.addEventListener('repair-ask', () => {
    if (element.isConnected) trigger('repair', { text: text.value });
  });
  stop.addEventListener('click', () => {
    stop.hidden = true;
    trigger('stop', {});
  });
  watchNewest({ props, watch }, 'request', arrived);
  document.dispatchEvent(new CustomEvent('plan-ask'));
}
