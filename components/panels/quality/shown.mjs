// What is shown of a value of the Quality tile while the page shows some plan.

const NOTHING = {
  name: 'Quality', value: '', unit: '', range: '', detail: '', tone: '', mark: '', message: '',
  repair: '', bar: null, busy: false, failed: false, button: false, stale: false,
};

export function isOf(value, plan) {
  return Boolean(value?.of && plan && value.of.plan === plan.plan && value.of.spec === plan.spec);
}

// The value of another plan of the same base stays, greyed and with its plan; one of another base
// or on another text does not.
export function shownAs(value, plan, text) {
  if (!value?.of || value.text !== text) return { ...NOTHING, busy: Boolean(plan) };
  if (isOf(value, plan)) return { ...NOTHING, ...value };
  if (!value.value || value.of.spec !== plan?.spec) return { ...NOTHING, busy: true };
  const message = `for plan ${value.of.plan}`;
  return { ...NOTHING, ...value, message, mark: '', repair: '', busy: true, button: false, stale: true };
}

// Whether the plan has no number yet, and one is being measured.
export function isDue({ busy, stale, value }) {
  return busy && (stale || !value);
}
