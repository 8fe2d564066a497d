// The visitor's last plans, kept in the browser's storage and nowhere else.

const KEY = 'layer-surgery-plans';
const MOST = 12;

export class RecentPlans {
  // `storage` is a function, because reading `localStorage` itself may be forbidden.
  constructor(storage) {
    this.storage = storage;
  }

  // Newest first, as {base, plan}.
  list() {
    try {
      const plans = JSON.parse(this.storage().getItem(KEY) || '[]');
      if (!Array.isArray(plans)) return [];
      return plans.filter((x) => typeof x?.base === 'string' && typeof x.plan === 'string');
    } catch {
      return []; // switched off, or not ours
    }
  }

  add(base, plan) {
    const rest = this.list().filter((x) => x.base !== base || x.plan !== plan);
    try {
      const plans = [{ base, plan }, ...rest].slice(0, MOST);
      this.storage().setItem(KEY, JSON.stringify(plans));
    } catch { /* full or switched off: then they are not kept */ }
  }

  clear() {
    this.storage().removeItem(KEY);
  }
}
