// Which columns of a figure along depth belong to layers that are hovered or selected elsewhere.
// `link` is {sources, strip}: each column's layer of the base, and whose layers the columns are.

export function columnsOf(link, detail) {
  if (!link?.sources || !detail) return [];
  // A figure of the base alone has no column for positions of the patient.
  if (link.strip === 'base' && detail.strip !== 'base') return [];
  const index = (p) => (detail.strip === 'base' ? link.sources[p] : p);
  const columns = link.sources.map((_, p) => p);
  return columns.filter((p) => index(p) >= detail.start && index(p) < detail.end);
}

// The column of the selected token, in a figure along the text of `side`.
export function tokenColumn(side, detail) {
  return detail?.side === side ? [detail.index] : [];
}

// Runs of neighbours, as [first, last].
export function runs(columns) {
  const found = [];
  for (const p of columns) {
    if (found.length && found.at(-1)[1] === p - 1) found.at(-1)[1] = p;
    else found.push([p, p]);
  }
  return found;
}

// Frames around the columns, over whatever the figure itself draws.
export function frames(columns, line) {
  return runs(columns).map(([first, last]) => ({
    type: 'rect', xref: 'x', yref: 'paper', x0: first - 0.5, x1: last + 0.5, y0: 0, y1: 1, line,
  }));
}
