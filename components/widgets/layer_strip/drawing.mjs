// Draws the strip: tiles, ribbons, the frame around a selection, and how they move to their places.
import { make } from '../dom.mjs';
import { describeBase, describePatient, initBadge } from './describe.mjs';
import { gapOf, numbered, placeAt, ribbonPath, slotWidth, TIGHT } from './geometry.mjs';

const EDGE = 12; // pixels around the stage, for outlines
const MOVE = 240; // milliseconds

export function createDrawing(element) {
  const stage = element.querySelector('.strip-stage');
  const scroll = element.querySelector('.strip-scroll');
  const ribbons = element.querySelector('.strip-ribbons');
  const rows = {
    base: element.querySelector('[data-strip=base]'),
    patient: element.querySelector('[data-strip=patient]'),
  };
  const calm = matchMedia('(prefers-reduced-motion: reduce)');
  const outline = make('div', 'strip-frame');
  const caret = make('div', 'strip-caret');

  // The drawing as it is. Places are counted in slots, so that a change of width and a change of
  // order are one movement.
  const tiles = { base: [], patient: [] };
  const places = new Map(); // by the id of a layer
  const paths = new Map();
  let slot = 0;
  let frame = 0;
  let framed = null; // {strip, start, end}
  let view = null;

  function addTile(strip) {
    const node = make('div', 'layer');
    node.setAttribute('role', 'option');
    node.append(make('i', 'layer-badge'), make('span', 'layer-number'));
    node.id = `strip-${strip}-${Math.random().toString(36).slice(2)}`;
    rows[strip].append(node);
    return node;
  }

  function dress(node, facts, index, count) {
    node.className = `layer ${facts.className}`.trim();
    node.dataset.source = facts.source;
    node.style.setProperty('--layer', view.colours[facts.source]);
    node.title = facts.text;
    node.setAttribute('aria-label', facts.text);
    node.setAttribute('aria-posinset', index + 1);
    node.setAttribute('aria-setsize', count);
    node.firstChild.textContent = facts.badge;
    node.lastChild.textContent = facts.source;
  }

  function drawBase() {
    const positions = Array.from({ length: view.depth }, () => []);
    view.patient.forEach((layer, p) => positions[layer.source].push(p));
    while (tiles.base.length > view.depth) tiles.base.pop().remove();
    while (tiles.base.length < view.depth) tiles.base.push(addTile('base'));
    tiles.base.forEach((node, i) => dress(node, {
      source: i,
      text: describeBase(view, i, positions[i]),
      className: positions[i].length ? '' : 'gone',
      badge: positions[i].length > 1 ? `×${positions[i].length}` : '',
    }, i, view.depth));
  }

  // Tiles are kept by the id of their layer, so that a layer that moves is seen to move.
  function drawPatient() {
    const before = new Map(tiles.patient.map((node) => [node.dataset.id, node]));
    tiles.patient = view.patient.map((layer, p) => {
      const node = before.get(layer.id) || addTile('patient');
      before.delete(layer.id);
      node.dataset.id = layer.id;
      dress(node, {
        source: layer.source,
        text: describePatient(view, layer, p),
        className: [layer.copy > 1 ? 'copy' : '', layer.init ? 'initialised' : ''].join(' ').trim(),
        badge: layer.init ? initBadge(layer.init) : '',
      }, p, view.patient.length);
      if (rows.patient.children[p] !== node) {
        rows.patient.insertBefore(node, rows.patient.children[p] || null);
      }
      return node;
    });
    for (const node of before.values()) node.remove();
  }

  function drawRibbons() {
    const stale = new Map(paths);
    view.patient.forEach((layer) => {
      let path = paths.get(layer.id);
      if (!path) {
        path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
        paths.set(layer.id, path);
      }
      stale.delete(layer.id);
      path.style.fill = view.colours[layer.source];
      path.dataset.source = layer.source;
      path.setAttribute('class', layer.copy > 1 ? 'copy' : '');
      ribbons.append(path);
    });
    for (const [id, path] of stale) {
      path.remove();
      paths.delete(id);
    }
  }

  // From where the tiles are to where they belong. New ones come out of their layer in the base.
  function travel(start) {
    cancelAnimationFrame(frame);
    const target = new Map(view.patient.map((layer, p) => [layer.id, p]));
    const from = new Map(view.patient.map((layer) => [
      layer.id, start.get(layer.id) ?? layer.source,
    ]));
    const slotBefore = slot;
    const slotAfter = wantedSlot();
    const began = performance.now();
    const jump = calm.matches || !slotBefore || !start.size;

    function step(now) {
      const t = jump ? 1 : Math.min(1, (now - began) / MOVE);
      const eased = 1 - (1 - t) ** 3;
      slot = slotBefore + (slotAfter - slotBefore) * eased;
      for (const [id, to] of target) places.set(id, from.get(id) + (to - from.get(id)) * eased);
      for (const id of places.keys()) if (!target.has(id)) places.delete(id);
      place();
      if (t < 1) frame = requestAnimationFrame(step);
    }
    step(began);
  }

  function wantedSlot() {
    const room = scroll.clientWidth - 2 * EDGE;
    return slotWidth(room, Math.max(view.depth, view.patient.length));
  }

  function place() {
    const gap = gapOf(slot);
    const width = slot - gap;
    const left = (at) => at * slot + gap / 2;
    stage.style.width = `${slot * Math.max(view.depth, view.patient.length)}px`;
    stage.classList.toggle('tight', slot < TIGHT);
    tiles.base.forEach((node, i) => {
      node.style.width = `${width}px`;
      node.style.transform = `translateX(${left(i)}px)`;
    });
    tiles.patient.forEach((node) => {
      node.style.width = `${width}px`;
      node.style.transform = `translateX(${left(places.get(node.dataset.id))}px)`;
    });
    for (const nodes of Object.values(tiles)) {
      const shown = numbered(nodes.map((node) => Number(node.dataset.source)), slot);
      nodes.forEach((node, p) => node.classList.toggle('mute', !shown.has(p)));
    }
    const height = ribbons.clientHeight;
    view.patient.forEach(({ id, source }) => {
      const path = ribbonPath(left(source), left(places.get(id)), width, height);
      paths.get(id).setAttribute('d', path);
    });
    paintFrame();
  }

  function paintFrame() {
    if (!framed) {
      outline.remove();
      return;
    }
    if (outline.parentNode !== rows[framed.strip]) rows[framed.strip].append(outline);
    outline.style.width = `${(framed.end - framed.start) * slot}px`;
    outline.style.transform = `translateX(${framed.start * slot}px)`;
  }

  return {
    rows,

    draw(next) {
      view = next;
      const start = new Map(places);
      drawBase();
      drawPatient();
      drawRibbons();
      travel(start);
    },

    resize() {
      if (!view) return;
      slot = wantedSlot();
      place();
    },

    // `cursor` holds the place that the keys act on, in each strip.
    paintSelection(chosen, cursor) {
      framed = chosen;
      for (const [strip, nodes] of Object.entries(tiles)) {
        const here = chosen && chosen.strip === strip;
        nodes.forEach((node, p) => {
          node.setAttribute('aria-selected', Boolean(here && p >= chosen.start && p < chosen.end));
          node.classList.toggle('cursor', p === cursor[strip]);
        });
        const active = nodes[cursor[strip]];
        if (active) rows[strip].setAttribute('aria-activedescendant', active.id);
      }
      paintFrame();
    },

    // Where layers that are being dragged would go; null takes the caret away.
    paintCaret(to) {
      if (to === null) {
        caret.remove();
        return;
      }
      rows.patient.append(caret);
      caret.style.transform = `translateX(${to * slot}px)`;
    },

    // The frame follows the pointer by so much; without numbers it goes back.
    carryFrame(x, y) {
      outline.classList.toggle('carried', x !== undefined);
      outline.style.translate = x === undefined ? '' : `${x}px ${y}px`;
    },

    // Lights up a layer of the base wherever it is drawn; without one, none.
    light(source) {
      const wanted = source === undefined ? null : String(source);
      for (const node of [...tiles.base, ...tiles.patient, ...paths.values()]) {
        node.classList.toggle('lit', node.dataset.source === wanted);
      }
    },

    placeUnder(event, strip) {
      const x = event.clientX - rows[strip].getBoundingClientRect().left;
      return placeAt(x, slot, tiles[strip].length);
    },
  };
}
