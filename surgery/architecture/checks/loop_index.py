"""Check the loop around the layers: code in it that computes with the position of a layer.

Features of an image may enter between layers, at fixed places (Qwen3-VL adds them behind its first
layers, IDEFICS has a cross-attention block before every fourth). A pass over text alone doesn't
show that, so the loop's code is read.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from transformers import AutoModelForMultimodalLM, PreTrainedConfig, PreTrainedModel

from surgery.architecture.inspect.anatomy import Anatomy
from surgery.architecture.inspect.loader import auto_class
from surgery.errors import Refused

from .index_use import KEEPERS

_HARMLESS = {"len": len, "range": range, "min": min, "max": max, "int": int, "bool": bool}


@dataclass(frozen=True)
class _Use:
    """An expression in the loop that computes with the position `index`. `features` is the argument
    of the forward pass that it depends on; None if it depends on the model alone."""

    index: str
    code: str
    features: str | None

    def value(self, owner: Any, position: int) -> Any:
        """Its value at a position in the loop of the module `owner`."""
        # The code is that of the class itself, which a reload would run too.
        return eval(self.code, {"__builtins__": _HARMLESS}, {self.index: position, "self": owner})


def check_loop(base: Anatomy, new: PreTrainedModel, sources: Sequence[int]) -> None:
    """Check that features which enter between layers do so where they did, and that whatever the
    loop computes from a position is what it was. Raises `Refused`."""
    if not (base.text_path or auto_class(base.whole) is AutoModelForMultimodalLM):
        return  # a pass over text shows all that the loop does
    path, _, leaf = base.stack.paths[0].rpartition(".")
    before, after = base.model.get_submodule(path), new.get_submodule(path)
    for use in _uses(type(before), leaf):  # type: ignore[arg-type]  # a class is hashable
        if use.features is not None:
            fixed = min(_fixed(base.whole, base.stack.depth), base.stack.depth)
            if list(sources[:fixed]) != list(range(fixed)):
                raise Refused(
                    f"Features of images enter {type(before).__name__} between its first layers "
                    f"(`{use.features}`), so {_first(fixed)}."
                )
            continue
        for position, layer in enumerate(sources):
            if use.value(after, position) != use.value(before, layer):
                raise Refused(
                    f"Layer {layer} at position {position} would not act as before: the loop "
                    f"around the layers computes with their position (`{use.code}` in "
                    f"{type(before).__name__})."
                )


def _first(count: int) -> str:
    if count == 1:
        return "layer 0 has to stay first"
    return f"layers 0 to {count - 1} have to stay first, each once and in this order"


def _fixed(config: PreTrainedConfig, depth: int) -> int:
    """How many layers lie before the last place where features enter, by the names that configs
    have for it; all of them if it has none of these names."""
    counts = []
    for part in (config, *(getattr(config, key, None) for key in config.sub_configs)):
        if indexes := getattr(part, "deepstack_visual_indexes", None):
            counts.append(len(indexes))  # behind the first layers
        if pairs := getattr(part, "deepstack_layer_map", None):
            targets = [layer for _, layer in pairs]
            targets += getattr(part, "spatial_target_layers", None) or ()
            counts.append(max(targets))  # before these layers
    return max(counts, default=depth)


@cache
def _uses(cls: type, leaf: str) -> tuple[_Use, ...]:
    """Expressions that compute with the position, in the loops over `self.<leaf>` of a class."""
    try:
        source = inspect.getsource(inspect.unwrap(cls.forward))  # type: ignore[attr-defined]
        function = ast.parse(textwrap.dedent(source)).body[0]
    except (AttributeError, OSError, TypeError, SyntaxError):
        return ()
    assert isinstance(function, ast.FunctionDef)
    given = {a.arg for a in (*function.args.args, *function.args.kwonlyargs)} - {"self"}
    found = {
        _Use(index, ast.unparse(node), _features(node, given))
        for index, loop in _loops(function, leaf)
        for node in _computations(loop, index)
    }
    return tuple(sorted((use for use in found if _counts(use, given)), key=lambda use: use.code))


def _loops(function: ast.FunctionDef, leaf: str) -> Iterator[tuple[str, ast.For]]:
    """(name of the position, loop) for each `for position, layer in enumerate(self.<leaf>…)`."""
    for node in ast.walk(function):
        if (
            isinstance(node, ast.For)
            and isinstance(node.iter, ast.Call)
            and ast.unparse(node.iter.func) == "enumerate"
            and isinstance(node.target, ast.Tuple)
            and isinstance(node.target.elts[0], ast.Name)
            and any(isinstance(x, ast.Attribute) and x.attr == leaf for x in ast.walk(node.iter))
        ):
            yield node.target.elts[0].id, node


def _computations(loop: ast.For, index: str) -> Iterator[ast.expr]:
    """The outermost comparisons and sums in which the position occurs."""
    todo: list[ast.AST] = list(loop.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.Compare, ast.BinOp)):
            if any(isinstance(x, ast.Name) and x.id == index for x in ast.walk(node)):
                yield node
            continue
        todo += ast.iter_child_nodes(node)


def _features(node: ast.expr, given: set[str]) -> str | None:
    """The argument that a computation depends on."""
    names = (x.id for x in ast.walk(node) if isinstance(x, ast.Name))
    return next((name for name in names if name in given), None)


def _counts(use: _Use, given: set[str]) -> bool:
    """Is it more than bookkeeping, such as a slot of a cache or a request for hidden states?"""
    if re.fullmatch(rf"{use.index} == self\.\w*layer\w*", use.code):
        return False  # the first layer behind a boundary, which is compared as an attribute
    names = {x.id for x in ast.walk(ast.parse(use.code)) if isinstance(x, ast.Name)}
    known = {use.index, "self", *_HARMLESS, *given}
    return names <= known and not any(word in use.code for word in KEEPERS)
