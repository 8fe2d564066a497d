"""Read mergekit's passthrough YAML as a plan; `export` writes it.

A recipe that a plan can't express is refused, naming the reason: one read in part would give
another model than its author meant. mergekit options without effect in a passthrough merge are
accepted and listed in `Recipe.notes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    model_validator,
)

from surgery.errors import PlanError, Refused, one_line
from surgery.initialisers import INITIALISERS, Block
from surgery.plan import COPY, MAX_LAYERS, Init, Layer, Plan

from .merge_methods import PASSTHROUGH, refusal

if TYPE_CHECKING:
    from surgery.model import Model

_LONGEST = 2 << 20  # characters; a slice for each of 4096 layers takes about half
_DEEPEST = 16  # levels of nesting; a recipe has seven
_TOO_DEEP = "The recipe is nested too deeply to be one."
# mergekit's parameters of other merge methods; passthrough reads only `scale`.
_IDLE = {
    *("weight", "density", "lambda", "gamma", "epsilon", "t", "normalize", "normalize_weights"),
    *("rescale", "int8_mask", "select_topk", "filter_wise", "max_iter", "tol", "eps"),
    *("nuslerp_flatten", "nuslerp_row_wise"),
}
_DTYPES = ("float32", "float16", "bfloat16")  # supported by a save


def _finite(value: float) -> float:
    if not abs(value) < float("inf"):
        raise ValueError("is not a finite number")
    return value


def _known_dtype(value: str) -> str:
    name = value.removeprefix("torch.")  # as mergekit reads it
    if name not in _DTYPES:
        raise ValueError(f"“{value[:40]}” is not a supported dtype: use {', '.join(_DTYPES)}")
    return name


Dtype = Annotated[str, AfterValidator(_known_dtype)]
Number = Annotated[float, Field(strict=True), AfterValidator(_finite)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Filtered(_Part):
    """A value for the tensors whose name has `filter` in it; for all others without one."""

    filter: str | None = None
    value: Number

    def fits(self, name: str) -> bool:
        """mergekit's test: is the filter a part of the tensor's name? `name` is what follows the
        layer's number."""
        return self.filter in (None, "*") or self.filter in f".{name}"


class Parameters(_Part):
    """What tensors are multiplied by."""

    model_config = ConfigDict(extra="allow")

    scale: Number | list[Filtered] | None = None

    @model_validator(mode="after")
    def _check_idle(self) -> Parameters:
        for name in self.idle:
            if name not in _IDLE:
                raise ValueError(f"“{name[:40]}” is not a known mergekit parameter")
        return self

    @property
    def idle(self) -> tuple[str, ...]:
        """The names of parameters that have no effect."""
        return tuple(self.model_extra or ())

    def factor(self, name: str) -> float | None:
        """The factor for a tensor; None if there is none."""
        if not isinstance(self.scale, list):
            return self.scale
        return next((entry.value for entry in self.scale if entry.fits(name)), None)


class Input(_Part):
    """Layers [start, end) of a model."""

    model: str
    layer_range: tuple[StrictInt, StrictInt]
    parameters: Parameters = Parameters()


class Slice(_Part):
    """One part of the stack; in a passthrough it has one source."""

    sources: list[Input] = Field(min_length=1, max_length=1)
    base_model: str | None = None
    parameters: Parameters = Parameters()


class Recipe(_Part):
    """A passthrough merge. `parameters` of a source come before those of its slice, and these
    before those of the recipe, as in mergekit."""

    slices: list[Slice] = Field(min_length=1, max_length=MAX_LAYERS)
    merge_method: str = PASSTHROUGH
    base_model: str | None = None
    dtype: Dtype | None = None
    out_dtype: Dtype | None = None
    tokenizer_source: str | None = None
    chat_template: str | None = None
    parameters: Parameters = Parameters()

    @property
    def model(self) -> str:
        """The model of the first slice: the base that the plan operates on."""
        return self.slices[0].sources[0].model

    @property
    def names(self) -> dict[str, str]:
        """The recipe's models, each with the name that the plan has for it: "" for the first, then
        b, c, …"""
        models = dict.fromkeys(part.sources[0].model for part in self.slices)
        return dict(zip(models, ("", *ascii_lowercase[1:]), strict=False))

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages about settings in the recipe that were ignored."""
        idle = dict.fromkeys(self.parameters.idle)
        for part in self.slices:
            idle |= dict.fromkeys((*part.parameters.idle, *part.sources[0].parameters.idle))
            if part.base_model:
                idle["base_model of a slice"] = None
        notes = []
        if idle:
            names = ", ".join(idle)
            notes.append(f"Ignored in the recipe, with no effect in passthrough merges: {names}.")
        for name in ("tokenizer_source", "chat_template"):
            if getattr(self, name):
                notes.append(f"Ignored in the recipe: {name}. The base's own is kept.")
        return tuple(notes)

    @property
    def saved_dtype(self) -> str | None:
        """The dtype that weights are converted to; None keeps each as it is stored."""
        return self.out_dtype or self.dtype

    def check_adapters(self, merged: Mapping[str, bool]) -> None:
        """Raise `Refused` if the recipe names a model with an adapter (`model+adapter`) and the
        base in its place has none. `merged` says of each base, by its name in the plan, whether an
        adapter is merged into it."""
        for model, name in self.names.items():
            if "+" in model and not merged[name] and not Path(model).expanduser().exists():
                raise Refused(
                    f"The recipe applies an adapter ({model[:120]}), and the base named for it has "
                    "none: name it as BASE+ADAPTER."
                )

    def plan(
        self,
        depth: int,
        tensors: Sequence[tuple[str, Block | None]],
        others: Mapping[str, int] | None = None,
    ) -> Plan:
        """Return the plan for a base of `depth` layers, and for other bases of the depths in
        `others`, by their names in the plan.

        `tensors` are a layer's tensors, as `layer_tensors` gives them. Raises `PlanError`, or
        `Refused` for scales that no plan can express.
        """
        layers: list[Layer] = []
        names, others = self.names, dict(others or {})
        for number, part in enumerate(self.slices):
            source = part.sources[0]
            start, end = source.layer_range
            name = names[source.model]
            if name and name not in others:
                raise PlanError(f"The recipe stacks layers of {source.model[:80]}, not given here.")
            last = (others[name] if name else depth) - 1
            if not 0 <= start < end <= last + 1:
                raise PlanError(
                    f"Slice {number} of the recipe, layer_range [{start}, {end}], is empty, runs "
                    f"backwards or leaves the base: it has layers 0 to {last}."
                )
            init = self._init(number, tensors)
            layers += [Layer(i, init, name) for i in range(start, end)]
            if len(layers) > MAX_LAYERS:
                raise PlanError(f"The recipe has more than {MAX_LAYERS:,} layers.")
        return Plan(tuple(layers), depth, others)

    def _init(self, number: int, tensors: Sequence[tuple[str, Block | None]]) -> Init:
        part = self.slices[number]
        levels = (part.sources[0].parameters, part.parameters, self.parameters)
        if all(level.scale is None for level in levels):
            return COPY
        for entry in (e for level in levels if isinstance(level.scale, list) for e in level.scale):
            # mergekit looks for it in the whole name: “layers.3” or “lm_head” would have an effect.
            if not any(entry.fits(name) for name, _ in tensors):
                raise Refused(
                    f"The recipe has the filter “{str(entry.filter)[:80]}”, and no tensor of a "
                    f"layer has that in its name after the layer's number ({tensors[0][0]} and "
                    "so on). Remove it; to scale one layer, give it a slice of its own."
                )
        factors: dict[Block | None, set[float]] = {}
        for name, block in tensors:
            scales = (level.factor(name) for level in levels)
            factors.setdefault(block, set()).add(next((f for f in scales if f is not None), 1.0))
        others = factors.pop(None, {1.0})
        if others == {1.0} and (init := _multiplying(factors)):
            return init
        raise Refused(
            f"Slice {number} of the recipe scales other tensors than a layer's output "
            "projections (o_proj, down_proj and their like), or those by different factors; "
            "a plan can't express that."
        )


def read(text: str, file: Path | None = None) -> Recipe:
    """Parse a recipe in YAML, of 2 MB at most; `file` is where it was read from, for messages.
    Raises `PlanError`, or `Refused` for what no plan can express."""
    try:
        _check_form(text)
        fields = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, PlanError):
            raise
        message = one_line(error, 200)
        if "nesting depth" in message:  # newer parsers have a limit of their own
            raise PlanError(_TOO_DEEP) from error
        raise PlanError(f"The recipe is not valid YAML: {message}") from error
    if not isinstance(fields, dict):
        raise PlanError("This is not a mergekit recipe: it has no `slices`.")
    method = fields.get("merge_method", PASSTHROUGH)
    if method != PASSTHROUGH:
        raise refusal(method, file)
    for key, why in (
        ("models", "whole models are merged with it; name layers in `slices` instead"),
        ("modules", "several stacks in one recipe are not done here"),
        ("tokenizer", "tokenizers are not rebuilt here; leave it out"),
    ):
        if key in fields:
            raise Refused(f"The recipe has `{key}`: {why}.")
    try:
        recipe = Recipe.model_validate(fields)
    except (ValidationError, RecursionError) as error:
        raise PlanError(f"The recipe can't be read: {_first(error)}") from error
    _check_models(recipe)
    return recipe


def _check_form(text: str) -> None:
    """Check that the text can't expand beyond its size, and isn't nested too deeply."""
    if len(text) > _LONGEST:
        raise PlanError(f"The recipe is longer than {_LONGEST >> 20} MB: no plan needs that.")
    depth = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise PlanError("The recipe has YAML aliases (*name): write out what they stand for.")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise PlanError(_TOO_DEEP)


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "it is nested too deeply."
    # Where a value may have several forms there is an error for each: the deepest says most.
    first = max(error.errors(include_url=False, include_context=False), key=lambda e: len(e["loc"]))
    place = ".".join(str(part) for part in first["loc"] if "(" not in str(part))[:120]
    return f"{place}: {first['msg']}."


def _check_models(recipe: Recipe) -> None:
    models = list(dict.fromkeys(part.sources[0].model for part in recipe.slices))
    if len(models) > len(ascii_lowercase):
        raise Refused(
            f"The recipe stacks layers of {len(models)} models; at most "
            f"{len(ascii_lowercase)} are allowed."
        )
    named, tokenizer = recipe.base_model, recipe.tokenizer_source
    if named is not None and named not in models:
        raise Refused(f"base_model {named[:80]} is another than the slices' model.")
    if tokenizer is not None and tokenizer not in ("base", "union", *models):  # all have the same
        raise Refused(f"tokenizer_source {tokenizer[:80]}: the base's own tokenizer is kept.")
    if recipe.chat_template not in (None, "auto"):  # “auto” keeps the base's own
        raise Refused("The recipe sets `chat_template`. The base's own is kept: remove the key.")
    first, last = recipe.dtype, recipe.out_dtype
    if first and last and first not in ("float32", last):
        raise Refused(
            f"The recipe converts weights to {first} and then to {last}, which rounds them twice. "
            "Remove `dtype`."
        )


def read_file(path: Path) -> Recipe:
    """Read a recipe from a file. Raises the errors of `read`, and `PlanError` for a file that can't
    be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return read(file.read(_LONGEST + 1), path)
    except OSError as error:
        raise PlanError(f"{path} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is not text in UTF-8.") from error


def _multiplying(factors: Mapping[Block | None, set[float]]) -> Init | None:
    """The initialiser that multiplies the output projections of each block by these factors."""
    each = {factor for values in factors.values() for factor in values}
    if len(each) == 1:
        (factor,) = each
        if factor == 1:
            return COPY
        return Init("identity") if factor == 0 else Init("scale", factor)
    zeroed = [block for block, values in factors.items() if values == {0.0}]
    kept = [block for block, values in factors.items() if values == {1.0}]
    if len(zeroed) == 1 and len(kept) == len(factors) - 1:
        return next((Init(i.name) for i in INITIALISERS.values() if i.block in zeroed), None)
    return None


def layer_tensors(base: Model) -> list[tuple[str, Block | None]]:
    """The tensors of the base's layers, as stored: (name after the layer's number, block). The
    block is the one that an output projection ends, and None for other tensors."""
    from surgery.architecture.inspect.identity_proof import output_block
    from surgery.architecture.inspect.names import disk_layers

    if base.source.tensors:
        parts = [p for p in disk_layers(base.anatomy, base.source.tensors).values() if p]
    else:
        parts = [p for name in base.anatomy.tensors if (p := base.anatomy.layer_of(name))]
    rests = dict.fromkeys(rest.lstrip(".") for _, _, rest in parts)
    return [(rest, output_block(rest)) for rest in rests]
