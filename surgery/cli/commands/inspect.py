"""`inspect`: what a base is."""

from __future__ import annotations

from surgery import facts

from ..common import BaseArgument, JsonOption, describe, out, print_json
from ..reports.preview import base_table


def inspect(base: BaseArgument, as_json: JsonOption = False) -> None:
    """Show what a base is. Reads its config and tensor headers, no weights."""
    opened = describe(base)
    if as_json:
        print_json(facts.of_base(opened))
        return
    out.print(base_table(opened))
