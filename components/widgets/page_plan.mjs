// The base, the plan and the healing that the page shows, for panels whose picture may be of others.
import { followPage } from './page_values.mjs';

// The key of the healing that a patient of `plan` has; empty if it was not healed. `healed` is
// {spec, plan, key} of the patient that was healed last.
export function healingOf(healed, { spec, plan }) {
  return healed && healed.spec === spec && healed.plan === plan ? healed.key : '';
}

// What has changed since something was made of {spec, plan, healing}, as a sentence; empty if nothing
// has. Without `healing` it is of the plan, whatever its weights. Of the base alone: without `plan`.
export function outdatedSince(of, page) {
  if (!of || !page) return '';
  if (of.spec !== page.spec) return 'Outdated: the base changed.';
  if (of.plan === undefined) return '';
  if (of.plan !== page.plan) return 'Outdated: the plan changed.';
  const healing = healingOf(page.healed, page);
  if (of.healing === undefined || !healing || of.healing === healing) return '';
  return 'Outdated: the patient was healed.';
}

// The page after its strip has another view. What was typed wrong stands in the plan's box, and the
// plan stays as it was.
export function pageAfter(page, view) {
  if (!view?.spec) return page;
  const kept = view.error && page?.spec === view.spec;
  return { ...page, spec: view.spec, plan: kept ? page.plan : view.text };
}

// Calls `listener` with {spec, plan, healed} whenever one has changed, for as long as the element is
// on the page, and at once if they are known already.
export function followPlan(element, listener) {
  let page = null;

  function tell(next) {
    const same = ['spec', 'plan', 'healed'].every((name) => next?.[name] === page?.[name]);
    page = next;
    if (!same) listener(page);
  }

  document.addEventListener('healed', ({ detail }) => {
    if (element.isConnected && page) tell({ ...page, healed: detail });
  });
  followPage(element, (view) => tell(pageAfter(page, view)));
}

// Has `line` say how what is drawn is outdated, and marks `board` then. `made` returns what it was
// made of, and the sentence ends in `ask`. Returns a function to call once something else is drawn.
export function markOutdated({ element, board, line, made, ask = '' }) {
  let page = null;

  function mark() {
    const since = outdatedSince(made(), page);
    line.hidden = !since;
    line.textContent = since && [since, ask].filter(Boolean).join(' ');
    board.classList.toggle('stale', Boolean(since));
  }

  followPlan(element, (next) => {
    page = next;
    mark();
  });
  return mark;
}
