// Draws the share card: the strip, the numbers and both texts, as a canvas of 1200 × 630. Nothing
// is asked of a server, and whatever a model or a file is called is drawn as text.
import { make } from '../../widgets/dom.mjs';
import { isFitted } from '../../widgets/layer_strip/describe.mjs';
import { gapOf, numbered, ribbonPath } from '../../widgets/layer_strip/geometry.mjs';
import { wrapped } from './wrap.mjs';

const [WIDTH, HEIGHT, EDGE] = [1200, 630, 40];
const STRIP = { left: 118, base: 92, tile: 38, between: 44 };
const PATIENT = STRIP.base + STRIP.tile + STRIP.between;
const NUMBERS = PATIENT + STRIP.tile + 28;
const TEXTS = { top: NUMBERS + 92, height: 246, width: 551, line: 26, lines: 7 };
const LINE = 1.5; // width of frames
const DARK = '#0d1117'; // on the layers' colours
const THEMES = {
  light: {
    page: '#f6f7f8', card: '#ffffff', line: '#dde1e6', text: '#1b1f24', subdued: '#56606b',
    accent: '#0b57b5', gone: '#8d97a3', apart: '#ffe9b3', ribbon: 0.3,
  },
  dark: {
    page: '#0e1116', card: '#161b22', line: '#2a323c', text: '#eef1f5', subdued: '#a3aebb',
    accent: '#7dbbff', gone: '#6b7683', apart: '#54400e', ribbon: 0.4,
  },
};

function pathOf(svg) {
  return new Path2D(svg);
}

// `card` has the strip's `view`, the `tiles` [{name, value, detail}], and, once there are any, the
// `prompt` and `texts` [{name, facts, runs}].
export function drawCard(card, dark) {
  const canvas = make('canvas');
  [canvas.width, canvas.height] = [WIDTH, HEIGHT];
  const pen = canvas.getContext('2d');
  const colours = THEMES[dark ? 'dark' : 'light'];
  const sans = getComputedStyle(document.body).fontFamily || 'sans-serif';

  function style(weight, size, colour, family = sans) {
    return { font: `${weight} ${size}px ${family}`, colour };
  }

  function measure(text, { font }) {
    pen.font = font;
    return pen.measureText(text).width;
  }

  function write(text, x, y, { font, colour }) {
    pen.font = font;
    pen.fillStyle = colour;
    pen.fillText(text, x, y);
  }

  // One line, shortened to fit.
  function line(text, x, y, width, how) {
    for (const piece of wrapped([{ text, style: how }], width, 1, measure)[0]) {
      write(piece.text, x + piece.x, y, how);
    }
  }

  function box(x, y, width, height, fill, stroke, radius = 12) {
    pen.beginPath();
    pen.roundRect(x, y, width, height, radius);
    if (fill) {
      pen.fillStyle = fill;
      pen.fill();
    }
    if (stroke) {
      pen.strokeStyle = stroke;
      pen.stroke();
    }
  }

  function drawHead({ view }) {
    const name = style(750, 27, colours.text);
    write('Layer Surgery', EDGE, 58, name);
    const left = EDGE + measure('Layer Surgery', name) + 24;
    const base = style(600, 18, colours.text);
    line(view.name, left, 57, 380, base);
    const plan = left + Math.min(380, measure(view.name, base)) + 18;
    const mono = style(500, 17, colours.subdued, 'ui-monospace, monospace');
    line(view.error ? '' : view.text, plan, 57, WIDTH - EDGE - plan, mono);
  }

  // A layer as on the strip: dropped ones are empty, initialised ones have a frame of their colour,
  // fitted ones stitches.
  function drawLayer({ source, init, gone }, x, y, width) {
    const radius = Math.min(5, width / 4);
    const own = card.view.colours[source];
    if (gone) box(x, y, width, STRIP.tile, null, colours.gone, radius);
    else if (init && !isFitted(init)) {
      pen.lineWidth = 3;
      box(x + 1.5, y + 1.5, width - 3, STRIP.tile - 3, colours.card, own, radius);
      pen.lineWidth = LINE;
    } else box(x, y, width, STRIP.tile, own, null, radius);
    if (isFitted(init)) drawStitches(x, y + STRIP.tile, width, radius);
  }

  function drawStitches(x, bottom, width, radius) {
    pen.save();
    pen.beginPath();
    pen.roundRect(x, bottom - 12, width, 12, radius);
    pen.clip();
    pen.strokeStyle = DARK;
    pen.lineWidth = 2;
    pen.beginPath();
    for (let left = x; left < x + width; left += 7) {
      pen.moveTo(left + 2.5, bottom - 6);
      pen.lineTo(left, bottom);
    }
    pen.stroke();
    pen.restore();
  }

  function drawRow(layers, y, slot) {
    const shown = numbered(layers.map(({ source }) => source), slot);
    const gap = gapOf(slot);
    layers.forEach((layer, place) => {
      const { source, init, gone } = layer;
      const x = STRIP.left + place * slot + gap / 2;
      drawLayer(layer, x, y, slot - gap);
      if (!shown.has(place)) return;
      const ink = gone ? colours.subdued : init && !isFitted(init) ? colours.text : DARK;
      const how = style(650, slot < 24 ? 11 : 14, ink);
      pen.textAlign = 'center';
      write(String(source), x + (slot - gap) / 2, y + STRIP.tile / 2 + 5, how);
      pen.textAlign = 'left';
    });
  }

  function drawStrip({ view }) {
    const sources = view.patient.map((layer) => layer.source);
    const slot = Math.min(
      60, (WIDTH - EDGE - STRIP.left) / Math.max(view.depth, sources.length),
    );
    const left = (place) => STRIP.left + place * slot + gapOf(slot) / 2;
    pen.save();
    pen.translate(0, STRIP.base + STRIP.tile);
    pen.globalAlpha = colours.ribbon;
    sources.forEach((source, place) => {
      const width = slot - gapOf(slot);
      pen.fillStyle = view.colours[source];
      pen.fill(pathOf(ribbonPath(left(source), left(place), width, STRIP.between)));
    });
    pen.restore();
    const label = style(650, 16, colours.text);
    write('Base', EDGE, STRIP.base + 25, label);
    write('Patient', EDGE, PATIENT + 25, label);
    const used = new Set(sources);
    const base = Array.from({ length: view.depth }, (_, i) => ({ source: i, gone: !used.has(i) }));
    drawRow(base, STRIP.base, slot);
    drawRow(view.patient, PATIENT, slot);
  }

  function drawNumbers({ tiles }) {
    const rows = [['name', 500, 15, 14], ['value', 700, 21, 43], ['detail', 500, 14, 65]];
    const needs = tiles.map((tile) => 22 + Math.max(
      ...rows.map(([part, weight, size]) => measure(tile[part], style(weight, size, ''))),
    ));
    // Each is as wide as it needs to be, and all are smaller where they need more than there is.
    const scale = Math.min(1, (WIDTH - 2 * EDGE) / needs.reduce((a, b) => a + b, 0));
    let x = EDGE;
    tiles.forEach((tile, i) => {
      for (const [part, weight, size, y] of rows) {
        const colour = part === 'value' ? colours.accent : colours.subdued;
        write(tile[part], x, NUMBERS + y, style(weight, size * scale, colour));
      }
      x += needs[i] * scale;
    });
  }

  function drawText({ name, facts, runs }, x, prompt) {
    const { top, width, height, lines } = TEXTS;
    box(x, top, width, height, colours.card, colours.line);
    const title = name === 'base' ? 'Base' : 'Patient';
    const bold = style(700, 17, colours.text);
    write(title, x + 18, top + 30, bold);
    const beside = x + 18 + measure(title, bold) + 12;
    const quiet = style(500, 14, colours.subdued);
    line(facts, beside, top + 30, x + width - 18 - beside, quiet);
    const [asked, said] = [style(400, 18, colours.subdued), style(500, 18, colours.text)];
    const marked = { ...said, fill: colours.apart };
    const all = [
      { text: prompt, style: asked },
      ...runs.map(({ text, inside }) => ({ text, style: inside ? marked : said })),
    ];
    wrapped(all, width - 36, lines, measure).forEach((pieces, row) => {
      const y = top + 62 + row * TEXTS.line;
      for (const piece of pieces) {
        const left = x + 18 + piece.x;
        const size = measure(piece.text, piece.style);
        if (piece.style.fill) box(left - 2, y - 19, size + 4, 26, piece.style.fill, null, 5);
        write(piece.text, left, y, piece.style);
      }
    });
  }

  pen.fillStyle = colours.page;
  pen.fillRect(0, 0, WIDTH, HEIGHT);
  pen.lineWidth = LINE;
  drawHead(card);
  drawStrip(card);
  drawNumbers(card);
  const places = [EDGE, WIDTH - EDGE - TEXTS.width];
  const none = { facts: 'no text generated yet', runs: [] };
  const texts = card.texts || [{ name: 'base', ...none }, { name: 'patient', ...none }];
  texts.forEach((text, i) => drawText(text, places[i], card.prompt || ''));
  return canvas;
}
