"""The options of `heal` that are made from the fields of `surgery.healing.Settings`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from surgery.healing.settings import CHOICES, Settings, allowed, bounds, described, is_whole
from surgery.plan import MAX_LAYERS, Plan

_NAMES = {"learning_rate": "--lr"}  # where an option is not called as its field
_GUARD = "at least"  # lowest values go without saying in the help


def with_settings(command: Callable) -> Callable:
    """Give a command an option for each setting, in place of its `**settings`."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [_option(name) for name in Settings.model_fields]
    first = [p for p in own if p.kind is not p.KEYWORD_ONLY]
    replaced = signature.replace(parameters=[*first, *options, *own[len(first) :]])
    vars(command)["__signature__"] = replaced
    return command


def read_settings(values: dict[str, Any]) -> Settings:
    """The settings that these options give. Raises `SurgeryError`."""
    layers = values["layers"].strip()
    return Settings(
        **{**values, "layers": Plan.parse(layers, MAX_LAYERS).sources if layers else ()}
    )


def option_name(name: str) -> str:
    """The option of a setting: --learning-rate, say, but for those with a shorter name."""
    return _NAMES.get(name, f"--{name.replace('_', '-')}")


def _option(name: str) -> inspect.Parameter:
    field = described(name)
    kind: type = str if bounds(name) is None else int if is_whole(name) else float
    values = allowed(name)
    text = (field.description or "").removesuffix(".")
    if name in CHOICES:
        text += f": {values}"
    elif values and not values.startswith(_GUARD):
        text += f" ({values})"
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default="" if name == "layers" else field.default,
        annotation=Annotated[
            kind if field.default is not None else kind | None,
            typer.Option(option_name(name), help=f"{text}."),
        ],
    )
