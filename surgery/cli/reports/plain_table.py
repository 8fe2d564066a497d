"""Tables of the commands `scan`, `suggest` and `compare`, without lines around their cells."""

from __future__ import annotations

from rich.table import Table


def plain_table(*left: str) -> Table:
    """A table whose first columns have these headings, aligned to the left."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in left:
        table.add_column(heading, no_wrap=True)
    return table
