"""What the Quality tile shows: what a plan costs, or why that isn't known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from surgery.numbers import perplexity
from surgery.operation import Operation

if TYPE_CHECKING:
    from components.services.quality import PlanQuality

_ROOM = 1.5  # the bar's length in increases of the random plan


def result(operation: Operation, text: str, found: PlanQuality, message: str = "") -> dict:
    """A measured plan. `message` says what is still being done."""
    on = f"{found.tokens:,} tokens"
    before, after = found.perplexities
    if operation.plan.is_whole and not operation.healed:
        return _tile(
            operation,
            text,
            value=perplexity(before),
            unit="perplexity of the base",
            range=f"{perplexity(found.low)} to {perplexity(found.high)}",
            detail=on,
            message=message,
            busy=bool(message),
        )
    increase = found.increase
    decimals = 2 if abs(increase.mean) >= 0.1 else 3
    return _tile(
        operation,
        text,
        value=_signed(increase.mean, decimals),
        unit="nats per token",
        range=f"{_signed(increase.low, decimals)} to {_signed(increase.high, decimals)}",
        detail=f"perplexity {perplexity(before)} → {perplexity(after)} · {on}",
        tone="worse" if increase.low > 0 else "better" if increase.high < 0 else "same",
        bar=_bar(found),
        mark=_mark(operation, found),
        message=message,
        busy=bool(message),
    )


def progress(operation: Operation, text: str, message: str) -> dict:
    """What is being done, before there is a number."""
    return _tile(operation, text, message=message, busy=True)


def remark(operation: Operation, text: str, message: str) -> dict:
    """The outcome of an action, until there is a number again."""
    return _tile(operation, text, message=message)


def failed(operation: Operation, text: str, message: str) -> dict:
    """Why there is no number."""
    return _tile(operation, text, message=message, failed=True)


def repairing(operation: Operation, text: str, message: str) -> dict:
    """How a repair goes. The tile's button stops it."""
    return _tile(operation, text, message=f"Repairing. {message}", busy=True, repair="stop")


def offer(operation: Operation, text: str, message: str) -> dict:
    """A button that starts measuring, and why it isn't done by itself."""
    return _tile(operation, text, message=message, button=True)


def _tile(operation: Operation, text: str, **shown: object) -> dict:
    empty: dict = {
        **dict.fromkeys(
            ("value", "unit", "range", "detail", "tone", "mark", "message", "repair"), ""
        ),
        **dict.fromkeys(("busy", "failed", "button"), False),
        "bar": None,
    }
    of = {"spec": operation.spec, "plan": str(operation.plan)}
    name = f"Quality, {operation.healed.word}" if operation.healed else "Quality"
    return {**empty, "of": of, "text": text, "name": name, **shown}


def _bar(found: PlanQuality) -> dict:
    """Shares of the bar's length from 0 to 1: the increase, its interval, the random plan's."""
    increase, random = found.increase, found.random
    if not math.isfinite(increase.mean):
        return {"value": 1.0, "low": 1.0, "high": 1.0, "random": None}
    ends = [increase.high * 1.1, 0.05]
    if random and math.isfinite(random.mean):
        ends.append(_ROOM * random.mean)
    longest = max(ends)

    def share(value: float) -> float:
        return round(min(1.0, max(0.0, value / longest)), 4)

    return {
        "value": share(increase.mean),
        "low": share(increase.low),
        "high": share(increase.high),
        "random": share(random.mean) if random else None,
    }


def _mark(operation: Operation, found: PlanQuality) -> str:
    """What the mark on the bar stands for."""
    if found.random is None:
        return ""
    change = len(operation.plan) - operation.plan.depth
    layers = "a random layer" if abs(change) == 1 else f"{abs(change)} random layers"
    what = "repeated" if change > 0 else "dropped"
    return f"{layers} {what}: {_signed(found.random.mean, 2)}"


def _signed(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:+.{decimals}f}".replace("-", "−")
