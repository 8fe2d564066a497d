// Breaks text in several styles into lines of limited width.

const PARTS = /\n|[^\S\n]+|\S+/g;

// Lines of [{text, style, x}] from runs [{text, style}]. `measure(text, style)` is a width in the
// unit of `width`. Words that are wider than a line are broken. What goes beyond `most` lines is
// left out, and an ellipsis stands for it.
export function wrapped(runs, width, most, measure) {
  const lines = [[]];
  let x = 0;

  function put(text, style) {
    const size = measure(text, style);
    lines.at(-1).push({ text, style, x });
    x += size;
  }

  function breakLine() {
    lines.push([]);
    x = 0;
  }

  function putLong(word, style) {
    let rest = [...word];
    while (rest.length) {
      let count = rest.length;
      while (count > 1 && x + measure(rest.slice(0, count).join(''), style) > width) count -= 1;
      put(rest.slice(0, count).join(''), style);
      rest = rest.slice(count);
      if (rest.length) breakLine();
      if (lines.length > most) return;
    }
  }

  for (const { text, style } of runs) {
    for (const [part] of text.matchAll(PARTS)) {
      const size = measure(part, style);
      if (part === '\n') breakLine();
      else if (!part.trim()) {
        if (x > 0 && x + size <= width) put(part, style);
      } else {
        if (x > 0 && x + size > width) breakLine();
        if (size <= width) put(part, style);
        else putLong(part, style);
      }
      if (lines.length > most) break;
    }
    if (lines.length > most) break;
  }
  if (lines.length <= most) return lines;
  const shown = lines.slice(0, most);
  const last = shown.at(-1);
  const end = (piece) => piece.x + measure(`${piece.text} …`, piece.style);
  while (last.length > 1 && end(last.at(-1)) > width) last.pop();
  if (last.length) last.at(-1).text = `${last.at(-1).text.trimEnd()} …`;
  else last.push({ text: '…', style: runs.at(-1).style, x: 0 });
  return shown;
}
