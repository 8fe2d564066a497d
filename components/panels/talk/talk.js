// Draws the two texts as they come. Every word of a model goes onto the page as text.
function speed(side) {
  if (!side || !side.tokens) return '';
  const words = [`${side.tokens} tokens`];
  if (side.tokens_per_second) words.push(`${side.tokens_per_second.toFixed(1)} tokens/s`);
  if (side.first) words.push(`first after ${side.first.toFixed(2)} s`);
  if (side.finished === 'end') words.push('ended by itself');
  return words.join(' · ');
}

function pane(who, value) {
  const box = element.querySelector(`[data-who=${who}]`);
  const side = value[who];
  const text = box.querySelector('.talk-text');
  box.querySelector('.talk-plan').textContent = (side && side.plan) || '';
  box.querySelector('.talk-plan').title = (side && side.plan) || '';
  box.querySelector('output').textContent = speed(side);
  const below = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
  text.replaceChildren();
  if (!side) {
    const hint = document.createElement('span');
    hint.className = 'talk-hint';
    hint.textContent = who === 'base'
      ? 'The model as it is will answer here.'
      : 'The model after surgery will answer here, to the same prompt with the same seed.';
    text.append(hint);
    return;
  }
  const prompt = document.createElement('span');
  prompt.className = 'talk-prompt';
  prompt.textContent = value.prompt;
  const said = document.createElement('span');
  said.className = 'talk-said';
  said.textContent = side.text;
  text.append(prompt, said);
  if (value.running && !side.finished) {
    const caret = document.createElement('span');
    caret.className = 'talk-caret';
    text.append(caret);
  }
  if (below) text.scrollTop = text.scrollHeight;
}

let ended = 0; // the last run that was stopped or came to its end

function render() {
  const value = { ...props.value };
  if (value.run && !value.running) ended = value.run;
  if (value.run === ended) value.running = false; // drawings of it may still arrive
  pane('base', value);
  pane('patient', value);
}

watch('value', render);
render();
