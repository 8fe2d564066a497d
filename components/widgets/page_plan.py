"""What a picture was made of, so that the page can say when it is outdated: see page_plan.mjs."""

from __future__ import annotations

from surgery.operation import Operation


def made_of(operation: Operation) -> dict[str, str]:
    """Base, plan and healing, as the page compares them with its own."""
    return dict(zip(("spec", "plan", "healing"), operation.key, strict=True))
