"""The commands, a file for each, in the order in which the help lists them.

A command is imported when it is asked for, since some import what takes a while.
"""

import ast
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files

COMMANDS = (
    "inspect",
    "preview",
    "generate",
    "weights",
    "scan",
    "tokens",
    "suggest",
    "compare",
    "skills",
    "evaluate",
    "repair",
    "heal",
    "save",
    "recipe",
    "verify",
    "check",
    "push",
)


def load(name: str) -> Callable:
    """The function of a command."""
    return getattr(import_module(f".{name}", __name__), name)


def summary(name: str) -> str:
    """The first line of a command's help, read without importing it."""
    source = files(__name__).joinpath(f"{name}.py").read_text(encoding="utf-8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    (command,) = (node for node in functions if node.name == name)
    return (ast.get_docstring(command) or "").partition("\n")[0]
