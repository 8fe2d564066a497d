// Says what has changed on the page since a text was made.

const BOTH = { // what both texts depend on, by the name of the field
  prompt: 'the prompt',
  greedy: 'the decoding method',
  chat: 'the use of the chat template',
  tokens: 'the length',
  seed: 'the seed',
  temperature: 'the temperature',
  top_p: 'top-p',
  image: 'the image',
};
const RANDOM = ['seed', 'temperature', 'top_p']; // these change nothing in greedy decoding

const FIELDS = Object.keys(BOTH);

// The values of the page, in that order, as they are compared: of an image, which one it is.
export function fieldsOf(values) {
  return Object.fromEntries(FIELDS.map((name, i) => (
    [name, name === 'image' ? values[i]?.id ?? '' : values[i]]
  )));
}

function list(words) {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
}

function changedFields(made, now) {
  const unused = made.greedy && now.greedy ? RANDOM : [];
  return FIELDS.filter((name) => (
    !unused.includes(name) && String(made[name] ?? '') !== String(now[name] ?? '')
  ));
}

// A sentence, empty if nothing has changed. `made` and `now` are {spec, plan, healing, fields}; only
// the patient depends on plan and healing.
export function outdated(name, made, now) {
  if (made.spec !== now.spec) return 'Outdated: the base changed.';
  const isPatient = name === 'patient';
  const samePlan = made.plan === now.plan;
  const changed = changedFields(made.fields, now.fields).map((field) => BOTH[field]);
  if (isPatient && !samePlan) changed.unshift('the plan');
  const clauses = changed.length ? [`${list(changed)} changed`] : [];
  if (isPatient && samePlan && made.healing !== now.healing) {
    clauses.push(now.healing ? 'the patient was healed' : 'the patient is no longer healed');
  }
  return clauses.length ? `Outdated: ${clauses.join(', and ')}.` : '';
}
