// Draws the lesson's panel: the list of steps, the text of one, and how far it is.
import { make } from '../../widgets/dom.mjs';
import { parameterCheck } from './parameter_check.mjs';
import { drawBlock } from './results.mjs';

// `steps` are the lesson's; `go` is called with the index of a step that is chosen.
export function createLessonDrawing(panel, steps, go) {
  const part = (name) => panel.querySelector(`.lesson-${name}`);
  const button = (name) => panel.querySelector(`[data-do=${name}]`);

  part('steps').replaceChildren(...steps.map((step, i) => {
    const jump = make('button', step.fault ? 'fault' : '');
    jump.append(make('b', '', String(i + 1)), make('span', '', step.short));
    jump.type = 'button';
    jump.title = step.title;
    jump.addEventListener('click', () => go(i));
    const item = make('li');
    item.append(jump);
    return item;
  }));

  return {
    part,
    button,

    // The list of steps is made once and then only marked.
    markSteps(at, done) {
      part('steps').querySelectorAll('button').forEach((jump, i) => {
        jump.classList.toggle('done', done.has(i));
        if (i === at) jump.setAttribute('aria-current', 'step');
        else jump.removeAttribute('aria-current');
        const state = done.has(i) ? ', done' : '';
        jump.setAttribute('aria-label', `Step ${i + 1}: ${steps[i].short}${state}`);
      });
    },

    step(at) {
      const step = steps[at];
      const next = steps[at + 1];
      part('count').textContent = `Step ${at + 1} of ${steps.length}`;
      panel.querySelector('h2').textContent = step.title;
      panel.classList.toggle('lesson-fault', step.fault);
      part('words').replaceChildren(...step.words.map((words) => make('p', '', words)));
      part('base').textContent = step.base_name;
      part('plan').textContent = step.plan;
      part('act').textContent = step.button;
      part('notice').querySelector('span').textContent = step.notice;
      button('back').disabled = at === 0;
      button('next').textContent = next ? `${next.short} →` : 'Finish';
      button('next').setAttribute('aria-label', next ? `Next: ${next.short}` : 'Finish');
      part('body').scrollTop = 0;
      const list = part('steps'); // where it is one row, it scrolls sideways
      const here = list.children[at];
      list.scrollLeft = here.offsetLeft - (list.clientWidth - here.offsetWidth) / 2;
    },

    check(expected, shown) {
      const line = part('check');
      const right = shown === expected;
      line.classList.toggle('right', right);
      line.replaceChildren(make('span', 'lesson-mark', right ? '✓' : '·'));
      for (const piece of parameterCheck(expected, shown)) {
        line.append(piece.number ? make('b', '', piece.number) : make('span', '', piece));
      }
    },

    status(status, running) {
      const box = part('status');
      const track = part('track');
      const text = status?.text || '';
      box.hidden = !text;
      box.classList.toggle('failed', Boolean(status?.failed));
      box.querySelector('p').textContent = text;
      track.hidden = !(running && typeof status?.share === 'number');
      if (track.hidden) return;
      const percent = Math.round(100 * status.share);
      track.setAttribute('aria-valuenow', percent);
      track.firstElementChild.style.width = `${percent}%`;
    },

    results(blocks, running) {
      const results = part('results');
      const before = results.childElementCount;
      results.replaceChildren(...blocks.map((block) => drawBlock(block, running)));
      // What has just begun is brought into sight; whoever scrolls meanwhile is left alone.
      if (running && blocks.length > before) {
        results.lastElementChild.scrollIntoView({ block: 'nearest' });
      }
    },
  };
}
