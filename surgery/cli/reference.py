"""The reference of the command line in Markdown, made from the commands themselves.

python -m surgery.cli.reference > docs/reference/cli.md
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from .commands import COMMANDS
from .main import HELP, program

_COMMAND = "python -m surgery.cli.reference > docs/reference/cli.md"


def markdown() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(program(*COMMANDS))
    lines = [
        "# Command line",
        "",
        f"<!-- Generated: {_COMMAND} -->",
        "",
        "[Use the command line](../how-to/command-line.md) shows the commands at work. "
        "`layer-surgery` is the same program as `python -m surgery`, once the package is "
        "installed.",
        "",
        "```",
        inspect.cleandoc(HELP.replace("\b\n", "")),
        "```",
    ]
    for name, command in group.commands.items():
        lines += ["", f"## {name}", "", *_command(name, command)]
    return "\n".join(lines) + "\n"


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join(_metavar(p) for p in arguments)
    yield f"`python -m surgery {name} {usage} [OPTIONS]`"
    for paragraph in command.help.split("\n\n"):
        yield ""
        yield " ".join(paragraph.split())
    yield ""
    yield "| Argument or option | Default | |"
    yield "|---|---|---|"
    for parameter in (*arguments, *options):
        if "--help" not in parameter.opts:
            yield _row(parameter)


def _row(parameter: Any) -> str:
    argument = parameter.param_type_name == "argument"
    name = _metavar(parameter) if argument else parameter.opts[0]
    if not argument and parameter.metavar:
        name += f" {parameter.metavar}"
    default = parameter.default
    if parameter.required:
        shown = "required"
    elif default is None or default is False or default in ("", ()):
        shown = ""
    else:
        words = default if isinstance(default, (list, tuple)) else [default]
        shown = f"`{' '.join(map(str, words))}`"
    return f"| `{name}` | {shown} | {parameter.help} |".replace("|  |", "| |")


def _metavar(parameter: Any) -> str:
    return parameter.metavar or parameter.name.upper()


if __name__ == "__main__":
    print(markdown(), end="")
