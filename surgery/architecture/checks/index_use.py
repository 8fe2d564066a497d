"""Find code in a layer's modules that computes with the layer's own index.

An index selects a slot of a cache or an entry of a list, and both are rewritten. Arithmetic on it,
or a branch that depends on it, changes what a moved layer computes, and comparing attributes does
not show that.
"""

from __future__ import annotations

import ast
import inspect
import operator
import textwrap
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import nn

from surgery.architecture.inspect.module_diff import INDEX_FIELDS

_COMPARE = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
# Objects that keep something per layer: an index may be handed to their methods.
KEEPERS = ("cache", "past", "state")


def index_use_changes(old: nn.Module, new: nn.Module) -> str | None:
    """Return the first line of code by which `new` would act differently than `old`, a module of
    the same class with other indices; None if there is none."""
    for use in _uses(type(new)):  # type: ignore[arg-type]  # a class is hashable
        a, b = vars(old).get(use.attribute), vars(new).get(use.attribute)
        if a == b or (use.test is not None and use.test(a) == use.test(b)):
            continue
        return use.code
    return None


class _Use:
    """Code that computes with an index. `test` is its comparison with a constant, if it is one."""

    def __init__(self, attribute: str, code: str, test=None) -> None:
        self.attribute, self.code, self.test = attribute, code, test


@cache
def _uses(cls: type[nn.Module]) -> tuple[_Use, ...]:
    """Uses of an index in the code that runs when a module of this class is called."""
    uses, todo, done = [], ["forward"], set()
    while todo:
        name = todo.pop()
        if name in done:
            continue
        done.add(name)
        try:
            source = inspect.getsource(inspect.unwrap(getattr(cls, name)))
            tree = ast.parse(textwrap.dedent(source))
        except (AttributeError, OSError, TypeError, SyntaxError):
            continue
        parents = {c: p for p in ast.walk(tree) for c in ast.iter_child_nodes(p)}
        for node in ast.walk(tree):
            if not (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            ):
                continue
            if node.attr in INDEX_FIELDS:
                use = _judged(node, parents)
                if use is not None:
                    uses.append(use)
            elif inspect.isfunction(getattr(cls, node.attr, None)):
                todo.append(node.attr)
    return tuple(uses)


def _judged(node: ast.Attribute, parents: dict) -> _Use | None:
    """Classify a use of an index; None if it is harmless."""
    parent, child = parents[node], node
    while isinstance(parent, (ast.Tuple, ast.keyword, ast.Slice)):
        parent, child = parents[parent], parent
    if isinstance(parent, ast.Subscript) and child is parent.slice:
        return None  # an entry of a list
    if isinstance(parent, (ast.FormattedValue, ast.JoinedStr)):
        return None  # a message
    if isinstance(parent, ast.Call) and child is not parent.func:
        called, given = ast.unparse(parent.func), ast.unparse(parent)
        part_of_self = called.startswith("self.") and any(word in given for word in KEEPERS)
        if any(word in called for word in KEEPERS) or called.startswith("logger") or part_of_self:
            return None  # a slot of a cache, or of the cache that a part is handed with it
    if isinstance(parent, ast.Compare):
        code = ast.unparse(parent)
        if any(word in code for word in KEEPERS):
            return None  # is its slot there yet?
        if len(parent.ops) == 1 and child is parent.left:
            other = parent.comparators[0]
            if isinstance(parent.ops[0], (ast.Is, ast.IsNot)):
                return None
            if isinstance(other, ast.Constant) and type(parent.ops[0]) in _COMPARE:
                compare: Callable[[Any, Any], Any] = _COMPARE[type(parent.ops[0])]
                value = other.value
                return _Use(node.attr, code, lambda x: bool(compare(x, value)))
    return _Use(node.attr, ast.unparse(parents[node]))
