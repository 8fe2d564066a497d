"""What a picture was made of, so that the page can say when it is outdated: see page_plan.mjs."""

from __future__ import annotations

from surgery.operation import Operation


def of_base(figure: dict, spec: str) -> dict:
    """The figure, which says that it is outdated once another base is open; an empty one stays
    empty."""
    return figure and {**figure, "of": {"spec": spec}}


def made_of(operation: Operation) -> dict[str, str]:
    """Base, plan and healing, as the page compares them with its own."""
    return dict(zip(("spec", "plan", "healing"), operation.key, strict=True))
