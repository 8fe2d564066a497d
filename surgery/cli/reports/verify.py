"""What JSON says of a program that ran a saved model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surgery.verification.llama_cpp import Agreement


def run_as_dict(
    program: str, version: str, found: Agreement, dtype: str | None
) -> dict[str, object]:
    """How a program's greedy tokens compare with the patient's. `dtype` is what it computed in,
    None if that is unknown."""
    return {
        "program": program,
        "version": version,
        "dtype": dtype,
        "tokens": found.tokens,
        "equal": found.equal,
        "mean": found.mean,
        "largest": found.largest,
    }
