// Figures as plain values: colours filled in, ticks thinned out, the numbers as rows.

const WORD = 7; // characters of a cell for which there should be room

// Colours that a figure leaves to the page are written as $text, $faint, $line, $accent, $panel, …
export function withColours(value, colours) {
  if (typeof value === 'string') return value[0] === '$' ? colours[value.slice(1)] || value : value;
  if (Array.isArray(value)) {
    return typeof value[0] === 'number' ? value : value.map((x) => withColours(x, colours));
  }
  if (!value || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, withColours(v, colours)]));
}

// An axis with no more labels than fit `width` pixels at a font of `size`.
export function thinned(axis, width, size) {
  const every = axis?.tickvals ? Math.ceil((axis.tickvals.length * 2.2 * size) / width) : 1;
  if (!(every > 1)) return axis;
  const kept = (list) => list?.filter((_, i) => i % every === 0);
  return { ...axis, tickvals: kept(axis.tickvals), ticktext: kept(axis.ticktext) };
}

// Traces without the words in cells that are too narrow for them in `width` pixels. Words without a
// size of their own are fitted by plotly.js.
export function legible(data, width) {
  const narrow = ({ x, text, textfont }) => {
    const longest = Math.max(...text.flat().map((word) => word?.length ?? 0));
    return width / x.length < 0.55 * textfont.size * Math.min(longest, WORD);
  };
  return data.map((trace) => (
    trace.texttemplate && trace.textfont?.size && narrow(trace)
      ? { ...trace, texttemplate: '' } : trace
  ));
}

// A table with its rows as columns, for where it is too wide.
export function transposed({ columns, rows: lines }) {
  const [head, ...rest] = columns.map((_, i) => [columns, ...lines].map((line) => line[i]));
  return { columns: head, rows: rest };
}

// What the figure shows as rows: a line for each point, or for each cell of a heat map.
export function rows({ title, data, layout }) {
  const x = layout.xaxis?.title?.text || 'x';
  const y = layout.yaxis?.title?.text || 'y';
  const lines = [];
  for (const trace of data) {
    if (trace.meta === 'decoration') continue;
    const name = trace.name || title;
    if (trace.z) {
      if (!lines.length) lines.push([x, y, name, 'count']);
      trace.z.forEach((line, i) => line.forEach((z, j) => {
        lines.push([trace.x[j], trace.y[i], z, trace.customdata?.[i]?.[j] ?? '']);
      }));
    } else {
      if (!lines.length) lines.push(['series', x, y]);
      trace.x.forEach((at, i) => lines.push([name, at, trace.y[i]]));
    }
  }
  return lines;
}

export function fileName(title) {
  return title.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '') || 'figure';
}
