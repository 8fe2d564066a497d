// The lesson's step in the page's address, as lesson=3.

// The index of the step, or null where the address names none.
export function stepIn(search, count) {
  const wanted = Number(new URLSearchParams(search).get('lesson'));
  return Number.isInteger(wanted) && wanted >= 1 && wanted <= count ? wanted - 1 : null;
}

// The query with another step, or without one; other parameters stay letter for letter.
export function withStep(search, index) {
  const rest = search.slice(1).split('&').filter((part) => part && !/^lesson(=|$)/.test(part));
  if (index !== null) rest.push(`lesson=${index + 1}`);
  return rest.length ? `?${rest.join('&')}` : '';
}
