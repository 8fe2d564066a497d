"""The rows of the table, and the checks that fill them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .workplace import Workplace


class NotRun(Exception):
    """This machine doesn't have what a check needs; the message says what."""


@dataclass(frozen=True)
class Result:
    """What a check found: whether it is right, or a figure beside its anchor.

    The anchor is what one would reach without this library, or what the hardware allows.
    `wanted` is the part of the anchor that a speed should reach, or, if `less` is better, the
    multiple that it may take; None where nothing is asked.
    """

    passed: bool | None = None
    figure: float | None = None
    anchor: float | None = None
    unit: str = ""
    detail: str = ""
    wanted: float | None = None
    less: bool = False


@dataclass(frozen=True)
class Check:
    """A check and its name in the table. One of rightness gives `passed`, one of speed a figure."""

    name: str
    run: Callable[[Workplace], Result]


@dataclass(frozen=True)
class Row:
    """A check that was run, or wasn't."""

    name: str
    state: str  # right, wrong, fast, slow, measured, failed, not run
    result: Result
    seconds: float = 0.0

    @property
    def is_wrong(self) -> bool:
        """Whether the exit status has to say so."""
        return self.state in ("wrong", "failed")


def state_of(result: Result, tiny: bool) -> str:
    """The state of a check that was run. Tiny models say nothing about speed."""
    if result.passed is not None:
        return "right" if result.passed else "wrong"
    assert result.figure is not None, "a check gives a verdict or a figure"
    if tiny or result.wanted is None or not result.anchor:
        return "measured"
    share = result.figure / result.anchor
    enough = share <= result.wanted if result.less else share >= result.wanted
    return "fast" if enough else "slow"
