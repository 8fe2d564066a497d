// Selecting tokens of the two texts, once it was measured which layers matter for each: with the
// pointer, by touch, with keys, or in the heat maps. The strip and the maps are told which.
import { make } from '../../widgets/dom.mjs';
import { needShare } from '../../widgets/layer_strip/geometry.mjs';
import { listen, send } from '../../widgets/layer_events.mjs';
import {
  costsOf, firstToken, layersOf, shownToken, stepped, tokenFacts,
} from './token_layers.mjs';

const SIDES = ['base', 'patient'];

// `texts` are the boxes of the texts, by side; `places` gives where they part; `fits` says whether a
// side's layers are those on the strip; `isVisible` whether the panel is; `redraw` draws the texts.
export function createTokenMode({ element, texts, places, fits, isVisible, redraw }) {
  const facts = element.querySelector('.talk-facts');
  const line = facts.querySelector('output');
  const mini = facts.querySelector('.talk-mini');
  let layers = null; // what was measured
  let picked = null; // {side, index}
  let hovered = null;
  let sent = '';

  function has(token) {
    return Boolean(token && layers?.sides[token.side]?.pieces.length > token.index);
  }

  function shown() {
    return has(hovered) ? hovered : picked;
  }

  // ---------------------------------------------------------------- drawing

  function tell() {
    const token = shown();
    const side = token && layers.sides[token.side];
    let detail = null;
    if (side && isVisible() && fits(token.side)) {
      const name = shownToken(side.pieces[token.index]);
      detail = { ...token, costs: costsOf(side, token.index), limit: layers.limit, name };
    }
    const text = JSON.stringify(detail);
    if (text === sent) return;
    sent = text;
    send('costs', detail, 'talk');
  }

  function drawMini(side, index) {
    mini.replaceChildren(...costsOf(side, index).map((cost, p) => {
      const cell = make('i', cost < 0 ? 'hindering' : '');
      cell.style.setProperty('--need', needShare(cost, layers.limit));
      if (p % 5 === 0) cell.textContent = p;
      return cell;
    }));
  }

  function mark() {
    const token = shown();
    for (const name of SIDES) {
      for (const node of texts[name].querySelectorAll('[data-token]')) {
        const index = Number(node.dataset.token);
        const is = (other) => other?.side === name && other.index === index;
        node.setAttribute('aria-selected', is(picked));
        node.classList.toggle('pointed', is(token));
        if (is(picked)) texts[name].setAttribute('aria-activedescendant', node.id);
      }
    }
    facts.hidden = !token;
    if (token) {
      const side = layers.sides[token.side];
      line.textContent = `${token.side === 'base' ? 'Base' : 'Patient'}: ${tokenFacts(side, token.index)}`;
      drawMini(side, token.index);
    }
    tell();
  }

  function dress() {
    for (const name of SIDES) {
      const on = Boolean(layers?.sides[name]);
      texts[name].classList.toggle('selectable', on);
      texts[name].toggleAttribute('data-tokens', on);
      if (on) texts[name].setAttribute('role', 'listbox');
      else {
        texts[name].removeAttribute('role');
        texts[name].removeAttribute('aria-activedescendant');
      }
    }
    document.getElementById('talk-maps')?.classList.toggle('put-away', !layers);
  }

  // ---------------------------------------------------------------- choosing

  function pick(side, index) {
    picked = { side, index };
    hovered = null;
    mark();
    texts[side].querySelector('[aria-selected=true]')?.scrollIntoView({ block: 'nearest' });
  }

  function leave() {
    layers = null;
    picked = null;
    hovered = null;
    dress();
    redraw();
  }

  function tokenAt(event, side) {
    const node = event.target.closest?.('[data-token]');
    return node && layers?.sides[side] ? { side, index: Number(node.dataset.token) } : null;
  }

  for (const side of SIDES) {
    const text = texts[side];
    text.addEventListener('pointerover', (event) => {
      if (!layers || event.pointerType === 'touch') return;
      hovered = tokenAt(event, side);
      mark();
    });
    text.addEventListener('pointerleave', () => {
      if (!hovered) return;
      hovered = null;
      mark();
    });
    text.addEventListener('click', (event) => {
      const token = tokenAt(event, side);
      if (token) pick(side, token.index);
    });
    text.addEventListener('keydown', (event) => {
      const here = layers?.sides[side];
      if (!here) return;
      if (event.key === 'Escape') leave();
      else {
        const from = picked?.side === side ? picked.index : 0;
        const to = stepped(event.key, from, here.pieces.length);
        if (to === null) return;
        pick(side, to);
      }
      event.preventDefault();
      event.stopPropagation();
    });
  }

  listen('token', element, (detail) => {
    if (!layers) return;
    if (detail?.picked && has(detail)) pick(detail.side, detail.index);
    else {
      hovered = detail && { side: detail.side, index: detail.index };
      mark();
    }
  });

  listen('ask', element, () => {
    sent = '';
    if (layers) tell();
  });

  facts.querySelector('button').addEventListener('click', leave);

  return {
    get isOn() { return Boolean(layers); },

    // What was measured of a side's text, to draw it by tokens; undefined without.
    of(side) { return layers?.sides[side]; },

    // A value has arrived: with what was measured, or without.
    take(value) {
      layers = layersOf(value);
      hovered = null;
      picked = null;
      dress();
      if (!layers) return;
      const side = layers.sides.base ? 'base' : 'patient';
      const place = places()?.[side];
      picked = { side, index: firstToken(layers.sides[side].pieces, place) };
    },

    // The texts were drawn anew.
    mark() {
      if (layers) mark();
      else {
        facts.hidden = true;
        tell();
      }
    },
  };
}
