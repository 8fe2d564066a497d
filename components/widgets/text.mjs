// Numbers and tables as text, the same everywhere on the page.

export function plural(count, one) {
  return `${integer(count)} ${one}${count === 1 ? '' : 's'}`;
}

// 48910 → 48,910
export function integer(value) {
  return value.toLocaleString('en');
}

// Two decimals below a thousand, then whole numbers; null stands for one that is not finite.
export function perplexity(value) {
  if (value === null) return '∞';
  return value < 1000 ? value.toFixed(2) : integer(Math.round(value));
}

export function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)} %`;
}

// The probability of a token from its loss in nats; null stands for one that is not finite.
export function probabilityText(loss) {
  if (loss === null) return 'probability 0';
  const share = 100 * Math.exp(-loss);
  const text = share < 0.001 ? '< 0.001' : Number(share.toPrecision(2)).toString();
  return `probability ${text} %`;
}

// +0.84, −0.12
export function signed(value, digits = 2) {
  return `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(digits)}`;
}

export function bytes(size) {
  if (size < 1000) return `${size} bytes`;
  return size < 1e6 ? `${(size / 1e3).toFixed(1)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

function csvCell(value) {
  const text = value === null || value === undefined ? '' : String(value);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// Rows as CSV (RFC 4180); null and undefined are empty cells.
export function csv(rows) {
  return rows.map((row) => row.map(csvCell).join(',')).join('\r\n') + '\r\n';
}
