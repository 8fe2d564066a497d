// The parameters that a step expects beside those that the page shows, in words.
import { integer } from '../../widgets/text.mjs';

// Pieces of a sentence; numbers are to be emphasised. `shown` is null while the page shows none.
export function parameterCheck(expected, shown) {
  if (shown === expected) return [{ number: integer(shown) }, ' parameters, as expected'];
  let rest = ' parameters; the page shows none yet';
  if (shown !== null) {
    const difference = integer(Math.abs(shown - expected));
    const direction = shown > expected ? 'more' : 'fewer';
    rest = ` parameters; the page shows ${integer(shown)} (${difference} ${direction})`;
  }
  return ['Expected ', { number: integer(expected) }, rest];
}
