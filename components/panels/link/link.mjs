// Writes what is on the page into its address, shows that as a link and a QR code, lists the
// visitor's last plans, and draws the page as a picture.
import { downloadBlob, make } from '../../widgets/dom.mjs';
import { writeQuery } from '../../widgets/page_address.mjs';
import { followPage } from '../../widgets/page_values.mjs';
import { defaults, plain, query, queryFor, SETTINGS } from './address.mjs';
import { drawCard } from './card.mjs';
import { RecentPlans } from './recent_plans.mjs';

const REST = 1200; // milliseconds until a plan counts as one of the last

// The text of a tile's part, with spaces between its nodes, which only the layout sets apart.
function words(node) {
  const parts = node?.children.length ? [...node.children] : [node];
  return parts.map((part) => part?.innerText || '').join(' ').replace(/\s+/g, ' ').trim();
}

// What the tiles of numbers say.
function tiles() {
  return [...document.querySelectorAll('.tile:has(.tile-value)')].map((tile) => {
    const [name, value, detail] = ['name', 'value', 'detail'].map((part) => (
      words(tile.querySelector(`.tile-${part}`))
    ));
    return { name, value, detail };
  });
}

export function mount({ element, trigger, props, watch }) {
  const opener = element.querySelector('.link-open');
  const dialog = element.querySelector('dialog');
  const box = element.querySelector('#link-address');
  const hint = element.querySelector('.link-hint');
  const svg = element.querySelector('.link-code');
  const recent = new RecentPlans(() => localStorage);
  let initial = null; // the settings as the page starts with them
  let resting = 0;
  let strip = null; // the strip's last view

  // ---------------------------------------------------------------- the address

  function write(view, ...values) {
    if (!view?.patient) return;
    strip = view;
    const settings = new Map(SETTINGS.map((name, i) => [name, plain(values[i])]));
    initial ??= defaults(settings, location.search);
    writeQuery(queryFor(view, settings, initial, location.search));
    clearTimeout(resting);
    if (!view.whole && !view.error) {
      resting = setTimeout(() => recent.add(view.spec, view.text), REST);
    }
  }

  // ---------------------------------------------------------------- the last plans

  function drawPlans() {
    const plans = recent.list();
    element.querySelector('.link-none').hidden = plans.length > 0;
    element.querySelector('.link-forget').hidden = !plans.length;
    element.querySelector('.link-plans').replaceChildren(...plans.map(({ base, plan }) => {
      const link = make('a', '', plan);
      const values = new Map([['base', base], ['plan', plan]]);
      link.href = location.pathname + query(values, location.search);
      const item = make('li');
      item.append(link, ` of ${base}`);
      return item;
    }));
  }

  element.querySelector('.link-forget').addEventListener('click', () => {
    recent.clear();
    drawPlans();
  });

  // ---------------------------------------------------------------- the picture

  function drawPicture() {
    if (!strip) return;
    const card = { view: strip, tiles: tiles() };
    document.dispatchEvent(new CustomEvent('share-card', { detail: card })); // Talk adds its texts
    drawCard(card, document.body.classList.contains('dark')).toBlob((png) => {
      downloadBlob(png, 'layer-surgery.png');
    });
  }

  element.querySelector('.link-picture').addEventListener('click', drawPicture);

  // ---------------------------------------------------------------- the sheet

  opener.addEventListener('click', () => {
    box.value = location.href;
    svg.toggleAttribute('hidden', true);
    const local = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);
    hint.textContent = local
      ? 'This address works on this computer only. To share it in a room, start the app with '
        + '--host 0.0.0.0 and open it by this computer’s name.'
      : '';
    drawPlans();
    dialog.showModal();
    trigger('draw', { address: location.href });
  });

  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close(); // a click beside the sheet
  });

  element.querySelector('.link-copy').addEventListener('click', async () => {
    box.select();
    try {
      await navigator.clipboard.writeText(box.value);
      hint.textContent = 'Copied.';
    } catch {
      hint.textContent = 'Press Ctrl + C to copy it.';
    }
  });

  function render() {
    const code = props.value;
    if (!code?.address || code.address !== box.value) return;
    svg.toggleAttribute('hidden', !code.size);
    if (!code.size) {
      hint.textContent = 'The address is too long for a QR code.';
      return;
    }
    svg.setAttribute('viewBox', `0 0 ${code.size} ${code.size}`);
    svg.querySelector('path').setAttribute('d', code.path);
  }

  // The button belongs with the others of the page's head, which may be drawn after it.
  function settle() {
    const row = document.querySelector('.help-buttons');
    if (row) row.prepend(opener);
    else requestAnimationFrame(settle);
  }

  settle();
  watch('value', render);
  followPage(element, write);
}
