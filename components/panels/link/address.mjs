// The page's state as the query of its address, and back out of it what others wrote there.

export const SETTINGS = ['prompt', 'greedy', 'chat', 'tokens', 'seed', 'temperature', 'top_p'];
const OWN = new Set(['base', 'plan', ...SETTINGS]);
const LONGEST = 6000; // characters of a query; beyond, the prompt is left out

// A setting as it is written: 1 or 0 for a switch.
export function plain(value) {
  return typeof value === 'boolean' ? String(Number(value)) : String(value ?? '');
}

export function read(search, name) {
  return new URLSearchParams(search).get(name);
}

// A query with `values` (a Map), and with the parameters of others as they are in `search`.
export function query(values, search) {
  const others = search.slice(1).split('&')
    .filter((part) => part && !OWN.has(part.split('=')[0]));
  const mine = [...values].filter(([, value]) => value)
    .map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll('%20', '+')}`);
  const all = [...mine, ...others];
  return all.length ? `?${all.join('&')}` : '';
}

// The settings that the page starts with, which need not be written: those that the link it was
// opened by does not give.
export function defaults(settings, search) {
  return new Map([...settings].filter(([name]) => read(search, name) === null));
}

// The query for the strip's view and the settings (Maps). A plan that is wrong stays as it was.
export function queryFor(view, settings, initial, search) {
  const values = new Map([['base', view.spec], ['plan', view.whole ? '' : view.text]]);
  for (const [name, value] of settings) if (value !== initial.get(name)) values.set(name, value);
  if (view.error) values.set('plan', read(search, 'plan') || '');
  const whole = query(values, search);
  if (whole.length <= LONGEST || !values.delete('prompt')) return whole;
  return query(values, search);
}
