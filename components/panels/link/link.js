// Writes what is on the page into its address, shows that as a link and a QR code, and keeps the
// visitor's last plans in the browser. Whatever stood in the address of others stays there.

const opener = element.querySelector('.link-open');
const dialog = element.querySelector('dialog');
const box = element.querySelector('#link-address');
const hint = element.querySelector('.link-hint');
const svg = element.querySelector('.link-code');
const OWN = ['base', 'plan', 'prompt', 'greedy', 'chat', 'tokens', 'seed', 'temperature', 'top_p'];
const KEY = 'layer-surgery-plans';
const KEPT = 12;
const LONGEST = 6000; // characters of an address; beyond, the prompt is left out
const RESTS = 1200; // milliseconds until a plan counts as one of the last

// ---------------------------------------------------------------- the address

let first = null; // the settings as the page has them by itself
let resting = 0;

function write(view, ...values) {
  if (!view?.patient || !element.isConnected) return;
  const said = OWN.slice(2).map((name, i) => [name, plain(values[i])]);
  first ??= new Map(said.map(([name, value]) => [name, asWritten(name) === null ? value : null]));
  const own = new Map([['base', view.spec], ['plan', view.whole ? '' : view.text]]);
  for (const [name, value] of said) if (value !== first.get(name)) own.set(name, value);
  if (view.error) own.set('plan', asWritten('plan') || '');
  let search = query(own);
  if (search.length > LONGEST && own.delete('prompt')) search = query(own);
  if (search !== location.search) {
    history.replaceState(history.state, '', location.pathname + search + location.hash);
  }
  clearTimeout(resting);
  if (!view.whole && !view.error) resting = setTimeout(() => keep(view.spec, view.text), RESTS);
}

function plain(value) {
  return typeof value === 'boolean' ? String(Number(value)) : String(value ?? '');
}

function asWritten(name) {
  return new URLSearchParams(location.search).get(name);
}

function query(own) {
  const others = location.search.slice(1).split('&')
    .filter((part) => part && !OWN.includes(part.split('=')[0]));
  const mine = [...own].filter(([, value]) => value)
    .map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll('%20', '+')}`);
  const all = [...mine, ...others];
  return all.length ? `?${all.join('&')}` : '';
}

window.layerSurgeryLink = write;

// ---------------------------------------------------------------- the last plans

function kept() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) || '[]');
    return Array.isArray(found) ? found.filter((x) => typeof x?.base === 'string' && typeof x.plan === 'string') : [];
  } catch {
    return []; // switched off, or another program's
  }
}

function keep(base, plan) {
  const rest = kept().filter((x) => x.base !== base || x.plan !== plan);
  try {
    localStorage.setItem(KEY, JSON.stringify([{ base, plan }, ...rest].slice(0, KEPT)));
  } catch { /* full, or switched off: then they are not kept */ }
}

function list() {
  const plans = kept();
  element.querySelector('.link-none').hidden = plans.length > 0;
  element.querySelector('.link-forget').hidden = !plans.length;
  element.querySelector('.link-plans').replaceChildren(...plans.map(({ base, plan }) => {
    const item = document.createElement('li');
    const link = document.createElement('a');
    link.href = location.pathname + query(new Map([['base', base], ['plan', plan]]));
    link.textContent = plan;
    item.append(link, ` of ${base}`);
    return item;
  }));
}

element.querySelector('.link-forget').addEventListener('click', () => {
  localStorage.removeItem(KEY);
  list();
});

// ---------------------------------------------------------------- the sheet

opener.addEventListener('click', () => {
  box.value = location.href;
  svg.toggleAttribute('hidden', true);
  const local = ['localhost', '127.0.0.1', '[::1]'].includes(location.hostname);
  hint.textContent = local
    ? 'It works on this machine only. For a room, start the app with --host 0.0.0.0 and open it by this machine’s name.'
    : '';
  list();
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
  const drawn = props.value;
  if (!drawn?.address || drawn.address !== box.value) return;
  svg.toggleAttribute('hidden', !drawn.size);
  if (!drawn.size) {
    hint.textContent = 'It is too long for a QR code.';
    return;
  }
  svg.setAttribute('viewBox', `0 0 ${drawn.size} ${drawn.size}`);
  svg.querySelector('path').setAttribute('d', drawn.path);
}

// Its button stands with the others of the page's head, which may be drawn after it.
function settle() {
  const row = document.querySelector('.help-buttons');
  if (row) row.prepend(opener);
  else requestAnimationFrame(settle);
}

settle();
watch('value', render);
