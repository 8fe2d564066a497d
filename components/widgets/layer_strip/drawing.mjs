// Draws the strip: bars, tiles, plates, ribbons, the frame around a selection, and how they move to
// their places.
import { make } from '../dom.mjs';
import {
  describeBase, describeCost, describeEnds, describeNeed, describePatient, initBadge, isFitted,
} from './describe.mjs';
import {
  barHeight, gapOf, mostZoom, needShare, numbered, placeAt, ribbonPath, slotWidth, TIGHT,
} from './geometry.mjs';

const EDGE = 12; // pixels around the stage, for outlines
const MOVE = 240; // milliseconds
const PLATE = 34; // pixels, with its gap
const SCROLL = 24; // pixels from the edge where a drag scrolls
const OPEN = 0.7; // of a slot: the gap where dragged layers would go
const PHONE = 700; // pixels: a strip as narrow as that is one for fingers

// `moved` is called whenever tiles have changed their places.
export function createDrawing(element, moved) {
  const stage = element.querySelector('.strip-stage');
  const scroll = element.querySelector('.strip-scroll');
  const ribbons = element.querySelector('.strip-ribbons');
  const rows = {
    base: element.querySelector('[data-strip=base]'),
    patient: element.querySelector('[data-strip=patient]'),
  };
  const bars = element.querySelector('.strip-bars');
  const plates = {
    base: element.querySelector('[data-plates=base]'),
    patient: element.querySelector('[data-plates=patient]'),
  };
  const calm = matchMedia('(prefers-reduced-motion: reduce)');
  const touch = matchMedia('(pointer: coarse)');
  const outline = make('div', 'strip-frame');
  const caret = make('div', 'strip-caret');

  // The drawing as it is. Places are counted in slots, so that a change of width and a change of
  // order are one movement.
  const tiles = { base: [], patient: [] };
  const places = new Map(); // by the id of a layer
  const paths = new Map();
  let slot = 0;
  let zoom = 1; // times the width that fits
  let frame = 0;
  let framed = null; // {strip, start, end}
  let tail = 0; // where the patient ends
  let carried = null; // copies of the tiles that follow the pointer
  let gap = null; // the place in the patient that is open for them
  let view = null;
  let need = null; // what a token needs

  stage.style.paddingInline = `${PLATE}px ${2 * PLATE}px`;

  function addTile(strip) {
    const node = make('div', 'layer');
    node.setAttribute('role', 'option');
    node.append(make('i', 'layer-badge'), make('span', 'layer-number'));
    node.id = `strip-${strip}-${Math.random().toString(36).slice(2)}`;
    rows[strip].append(node);
    return node;
  }

  function dress(node, facts, index, count) {
    const lifted = node.classList.contains('lifted') ? 'lifted' : ''; // a drag may be under way
    node.className = ['layer', facts.className, lifted].filter(Boolean).join(' ');
    node.dataset.source = facts.source;
    node.style.setProperty('--layer', view.colours[facts.source]);
    node.words = facts.text;
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

  // Bars are kept, so that they grow as layers are measured.
  function drawBars() {
    const { costs, breaking } = view.importance || {};
    const known = costs || [];
    const most = Math.max(...known);
    while (bars.children.length > known.length) bars.lastChild.remove();
    while (bars.children.length < known.length) bars.append(make('i'));
    known.forEach((cost, layer) => {
      const bar = bars.children[layer];
      const broken = breaking.includes(layer);
      const measured = cost !== null || broken;
      bar.className = [broken ? 'breaking' : '', measured ? '' : 'unmeasured'].join(' ').trim();
      bar.title = describeCost(view, layer) || 'not measured yet';
      // A layer whose losses are not finite has no cost, and the highest bar.
      const share = cost === null && broken ? 1 : barHeight(cost ?? 0, most);
      bar.style.height = measured ? `max(2px, ${100 * share}%)` : '2px';
    });
  }

  // Plates are kept as well: one that is pointed at keeps its hint while layers are measured.
  function drawPlates() {
    const ends = describeEnds(view.contents);
    for (const row of Object.values(plates)) {
      while (row.children.length > ends.length) row.lastChild.remove();
      ends.forEach(({ key, label, text }, i) => {
        const plate = row.children[i] || row.appendChild(make('span', 'plate'));
        plate.textContent = label;
        plate.dataset.of = key;
        plate.title = text;
        plate.setAttribute('role', 'img');
        plate.setAttribute('aria-label', text);
      });
    }
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
        className: [
          layer.copy > 1 ? 'copy' : '',
          isFitted(layer.init) ? 'fitted' : layer.init ? 'initialised' : '',
        ].join(' ').trim(),
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
    const [slotBefore, tailBefore] = [slot, tail];
    const [slotAfter, tailAfter] = [wantedSlot(), view.patient.length];
    const began = performance.now();
    const jump = calm.matches || !slotBefore || !start.size;

    function step(now) {
      const t = jump ? 1 : Math.min(1, (now - began) / MOVE);
      const eased = 1 - (1 - t) ** 3;
      slot = slotBefore + (slotAfter - slotBefore) * eased;
      tail = tailBefore + (tailAfter - tailBefore) * eased;
      for (const [id, to] of target) places.set(id, from.get(id) + (to - from.get(id)) * eased);
      for (const id of places.keys()) if (!target.has(id)) places.delete(id);
      place();
      if (t < 1) frame = requestAnimationFrame(step);
    }
    step(began);
  }

  function fittingSlot() {
    const width = scroll.clientWidth;
    const count = Math.max(view.depth, view.patient.length);
    return slotWidth(width - 2 * EDGE - 3 * PLATE, count, touch.matches || width < PHONE);
  }

  function wantedSlot() {
    const fitting = fittingSlot();
    return fitting * Math.min(zoom, mostZoom(fitting));
  }

  // Colours the layers by what a token needs, and says what a tile is.
  function paintNeed() {
    for (const [strip, nodes] of Object.entries(tiles)) {
      const here = need?.side === strip && need.costs.length === nodes.length;
      nodes.forEach((node, p) => {
        const cost = here ? need.costs[p] : undefined;
        const words = [node.words, here && describeNeed(need, cost)].filter(Boolean).join('; ');
        node.title = words;
        node.setAttribute('aria-label', words);
        node.classList.toggle('needed', here);
        node.classList.toggle('hindering', here && cost < 0);
        if (here) node.style.setProperty('--need', needShare(cost, need.limit));
      });
    }
  }

  function place() {
    const between = gapOf(slot);
    const width = slot - between;
    const left = (at) => at * slot + between / 2;
    const shifted = (id, p) => places.get(id) + (gap !== null && p >= gap ? OPEN : 0);
    stage.style.width = `${slot * Math.max(view.depth, view.patient.length)}px`;
    stage.classList.toggle('tight', slot < TIGHT);
    tiles.base.forEach((node, i) => {
      node.style.width = `${width}px`;
      node.style.transform = `translateX(${left(i)}px)`;
    });
    tiles.patient.forEach((node, p) => {
      node.style.width = `${width}px`;
      node.style.transform = `translateX(${left(shifted(node.dataset.id, p))}px)`;
    });
    [...bars.children].forEach((bar, i) => {
      bar.style.width = `${width}px`;
      bar.style.transform = `translateX(${left(i)}px)`;
    });
    const end = tail + (gap === null ? 0 : OPEN);
    for (const [strip, at] of [['base', view.depth], ['patient', end]]) {
      const [embedding, ...last] = plates[strip].children;
      embedding.style.transform = `translateX(${-PLATE}px)`;
      last.forEach((plate, i) => {
        plate.style.transform = `translateX(${at * slot + 4 + i * PLATE}px)`;
      });
    }
    for (const nodes of Object.values(tiles)) {
      const shown = numbered(nodes.map((node) => Number(node.dataset.source)), slot);
      nodes.forEach((node, p) => node.classList.toggle('mute', !shown.has(p)));
    }
    const height = ribbons.clientHeight;
    view.patient.forEach(({ id, source }, p) => {
      const path = ribbonPath(left(source), left(shifted(id, p)), width, height);
      paths.get(id).setAttribute('d', path);
    });
    paintFrame();
    moved();
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

    // `needed` as in `showNeed`.
    draw(next, needed) {
      view = next;
      need = needed;
      const start = new Map(places);
      drawBars();
      drawPlates();
      drawBase();
      drawPatient();
      drawRibbons();
      paintNeed();
      travel(start);
    },

    // What a token needs of one side's layers, {side, costs, limit, name}; null for none.
    showNeed(next) {
      need = next;
      paintNeed();
    },

    resize() {
      if (!view) return;
      slot = wantedSlot();
      place();
    },

    // Tiles that much wider, about the middle of what is seen.
    zoomBy(factor) {
      const middle = scroll.clientWidth / 2 - EDGE - PLATE;
      const at = (scroll.scrollLeft + middle) / slot;
      zoom = Math.max(1, Math.min(mostZoom(fittingSlot()), zoom * factor));
      slot = wantedSlot();
      place();
      scroll.scrollLeft = at * slot - middle;
    },

    // Whether it can be zoomed out and in; `offered` where tiles are narrow.
    zooms() {
      const fitting = fittingSlot();
      return {
        offered: fitting < TIGHT,
        out: zoom > 1,
        in: zoom < mostZoom(fitting),
      };
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
      moved();
    },

    // Opens a gap where layers that are being dragged would go; null closes it.
    openGap(to) {
      if (to === gap) return;
      gap = to;
      if (to === null) caret.remove();
      else {
        rows.patient.append(caret);
        caret.style.transform = `translateX(${(to + OPEN / 2) * slot}px)`;
      }
      place();
    },

    // The selected tiles follow the pointer by so much, from where they stay dimmed; without
    // numbers they go back.
    carry(x, y) {
      stage.classList.toggle('carrying', x !== undefined);
      if (x === undefined) {
        for (const node of stage.querySelectorAll('.lifted')) node.classList.remove('lifted');
        carried?.remove();
        carried = null;
        return;
      }
      if (!carried) {
        const nodes = tiles[framed.strip].slice(framed.start, framed.end);
        carried = make('div', 'strip-carried');
        carried.setAttribute('aria-hidden', 'true');
        carried.append(...nodes.map((node) => {
          const copy = node.cloneNode(true);
          for (const name of copy.getAttributeNames()) {
            if (!['class', 'style'].includes(name)) copy.removeAttribute(name);
          }
          return copy;
        }));
        rows[framed.strip].parentNode.append(carried);
        for (const node of nodes) node.classList.add('lifted');
      }
      carried.style.translate = `${x}px ${y}px`;
    },

    // The selection's frame on the screen: {left, right}; null without one.
    frameBox() {
      if (!framed) return null;
      const { left } = rows[framed.strip].getBoundingClientRect();
      return { left: left + framed.start * slot, right: left + framed.end * slot };
    },

    // A strip that is wider than its room moves on under a pointer at its edge.
    scrollAt(x) {
      const box = scroll.getBoundingClientRect();
      if (x < box.left + SCROLL) scroll.scrollLeft -= SCROLL / 2;
      else if (x > box.right - SCROLL) scroll.scrollLeft += SCROLL / 2;
    },

    // Moves as far as needed to see the layer at a place.
    reveal(at) {
      const left = PLATE + at * slot;
      const right = left + slot + 2 * EDGE;
      if (left < scroll.scrollLeft) scroll.scrollLeft = left;
      else if (right > scroll.scrollLeft + scroll.clientWidth) {
        scroll.scrollLeft = right - scroll.clientWidth;
      }
    },

    // Lights up a layer of the base wherever it is drawn; without one, none.
    light(source) {
      const wanted = source === undefined ? null : String(source);
      for (const node of [...tiles.base, ...tiles.patient, ...paths.values()]) {
        node.classList.toggle('lit', node.dataset.source === wanted);
      }
    },

    // Where tiles are still moving, the layer is the one that is seen under the pointer.
    placeUnder(event, strip) {
      const x = event.clientX - rows[strip].getBoundingClientRect().left;
      const under = placeAt(x, slot, tiles[strip].length);
      const seen = document.elementFromPoint(event.clientX, event.clientY)?.closest('.layer');
      const index = tiles[strip].indexOf(seen);
      return index < 0 ? under : { ...under, index };
    },
  };
}
