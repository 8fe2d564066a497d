"""The command line: `python -m surgery`. One plain line per error, never a traceback.

Knows arguments, terminals and exit codes; everything else is the library's.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from surgery import __version__, facts, presets
from surgery.errors import PlanError, SurgeryError
from surgery.plan import Plan
from surgery.progress import Cancelled

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.recipe import Recipe

INSTALLED = "layer-surgery"  # the command that the package installs
PROGRAM = INSTALLED if Path(sys.argv[0]).stem == INSTALLED else "python -m surgery"
_PRESETS = "\n".join(
    f"  {' '.join([name, *(f'{p.name}=N' for p in preset.parameters)]):<29}{preset.hint}"
    for name, preset in presets.PRESETS.items()
)
# Click reflows a paragraph unless it begins with \b.
HELP = f"""Drop, repeat and move the layers of a language model.

\b
BASE is the model to operate on:
  bundled                      SmolLM2-135M-Instruct, 30 layers
  org/name, org/name@revision  a model on the Hugging Face Hub
  path/to/folder               safetensors with their config.json
  path/to/file.gguf            a GGUF file; it is dequantised
  config:path/to/config.json   a config alone, with random weights

\b
PLAN lists its layers in the order in which they shall run. Layers count from
0, and a range leaves its end out. With 30 layers:
  "0:13, 17:30"                leaves out layers 13 to 16
  "0:22, 8:30"                 runs layers 8 to 21 twice
  "0:8, 8:12*3, 12:30"         runs layers 8 to 11 three times
  "0:8, 7@identity, 8:30"      adds a layer 7 that begins as the identity

\b
Or PLAN is a preset; values that are left out follow from the depth:
{_PRESETS}

\b
Or PLAN is @file.yaml, a recipe as mergekit's passthrough has it.

\b
Examples:
  python -m surgery inspect bundled
  python -m surgery preview bundled "0:13, 17:30"
  python -m surgery generate bundled "drop-middle n=4" --prompt "The sun is"
  python -m surgery weights bundled "0:22, 8:30"
  python -m surgery scan bundled
  python -m surgery suggest bundled --layers 24
  python -m surgery compare bundled "0:13, 17:30"
  python -m surgery save bundled "0:22, 8:30" my-model
  python -m surgery heal bundled "0:13, 17:30" healed --minutes 15

Exit status: 0 if all went well, 1 for an error, 2 for wrong usage, 130 if stopped.
"""

# No markup mode: plain text has no boxes, and keeps the paragraphs above as they are.
app = typer.Typer(
    name="surgery",
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)

_MORE = "`python -m surgery --help` tells how to write BASE and PLAN."
BaseArgument = Annotated[
    str, typer.Argument(metavar="BASE", help="“bundled”, a Hub id, a folder or a file.")
]
PlanArgument = Annotated[
    str, typer.Argument(metavar="PLAN", help="Layers in running order, a preset, or @recipe.yaml.")
]
WithOption = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="NAME=BASE",
        help="Name another base of the same shape, for plans such as 0:16, b/8:24.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{INSTALLED} {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command(epilog=_MORE)
def inspect(base: BaseArgument, as_json: JsonOption = False) -> None:
    """Show what a base is. Reads its config and tensor headers, no weights."""
    found = _open(base)
    if as_json:
        _print_json(facts.of_base(found))
        return
    whole = asdict(found.preview(Plan.whole(found.depth)))
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for label, value in (
        ("name", found.name),
        ("found as", found.kind + (f", {found.note}" if found.note else "")),
        ("architecture", found.architecture),
        ("dtype", found.dtype),
        ("licence", found.source.licence or "not stated"),
        ("tokenizer", _tokenizer_words(found)),
    ):
        table.add_row(label, escape(str(value)))
    for label, value in _numbers(whole):
        table.add_row(label, value)
    table.add_row("parameters by component")
    for name, value in whole["by_component"].items():
        table.add_row(f"  {name}", f"{value:,}")
    if any(found.kinds):
        for i, kind in enumerate(found.kinds):
            table.add_row(f"  layer {i}", escape(kind))
    out.print(table)


@app.command(epilog=_MORE)
def preview(
    base: BaseArgument, plan: PlanArgument, with_: WithOption = None, as_json: JsonOption = False
) -> None:
    """Show what a plan would make of a base. Reads no weights."""
    found, wanted, (made, flat) = _operation(base, plan, with_)
    before, after = found.preview(Plan.whole(found.depth)), made.preview(flat)
    if as_json:
        _print_json(facts.of_plan(found, wanted, before, after))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", found.name, "patient", ""):
        table.add_column(escape(heading), justify="left" if not heading else "right")
    old, new = asdict(before), asdict(after)
    rows = [*zip(_numbers(old), _numbers(new), _ratios(old, new), strict=True)]
    for (label, a), (_, b), change in rows:
        table.add_row(label, a, b, change)
    table.add_row("parameters by component")
    for name, value in old["by_component"].items():
        now = new["by_component"].get(name, 0)
        table.add_row(f"  {name}", f"{value:,}", f"{now:,}", _percent(value, now))
    out.print(f"{escape(str(wanted))}  ({wanted.describe()})\n")
    out.print(table)


@app.command(epilog=_MORE)
def generate(
    base: BaseArgument,
    plan: PlanArgument,
    prompt: Annotated[str, typer.Option(help="The text that the model goes on from.")],
    max_new_tokens: Annotated[int, typer.Option(help="Stop after so many tokens at most.")] = 64,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Always take the likeliest token.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    temperature: Annotated[float, typer.Option(help="0.01 to 100; higher is wilder.")] = 0.8,
    top_p: Annotated[
        float,
        typer.Option(help="Draw from the likeliest tokens that together have this probability."),
    ] = 0.95,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the prompt into the chat template.")
    ] = False,
    with_: WithOption = None,
) -> None:
    """Let the operated model speak. Text goes to stdout as it comes, figures to stderr."""
    _, _, (made, flat) = _operation(base, plan, with_)
    with _progress() as progress:
        made.load(progress)
    patient = made.operate(flat)
    stream = patient.stream(
        os.fsencode(prompt).decode("utf-8", "surrogateescape"),  # whatever the locale took it for
        max_new_tokens=max_new_tokens,
        greedy=greedy,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        chat=chat,
    )
    for piece in stream:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    stats = stream.stats
    speed = f", {stats.tokens_per_second:.1f} tokens/s" if stats.tokens_per_second else ""
    if stats.first_token_seconds is not None:
        first = f", first after {stats.first_token_seconds:.2f} s"
        err.print(f"[dim]{stats.tokens} tokens{speed}{first}[/dim]")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, 1 for an error, 2 for wrong usage, 130 if
    it was stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _make_streams_safe()
    # Their commands are the app's.
    from . import analysis, heal, saving, weights  # noqa: F401

    try:
        status = app(arguments or ["--help"], prog_name=PROGRAM, standalone_mode=False) or 0
        sys.stdout.flush()
    except (KeyboardInterrupt, Cancelled):
        status = 130
    except SurgeryError as error:
        return _fail(str(error))
    except (BrokenPipeError, SystemExit):  # typer makes one of the other
        _silence_stdout()  # whoever read our output has had enough
        return 0
    except OSError as error:
        _silence_stdout()
        place = f" ({error.filename})" if error.filename else ""
        return _fail(f"The system says: {error.strerror or error}{place}.")
    except Exception as error:
        if hasattr(error, "format_message"):  # wrong usage, in click's words
            context = getattr(error, "ctx", None)
            where = context.command_path if context else PROGRAM
            said = error.format_message().rstrip(".")
            err.print(escape(_one_line(f"{said}. Try: {where} --help")))
            return 2
        if os.environ.get("SURGERY_DEBUG"):
            raise
        return _fail(
            f"Something went wrong that should not ({type(error).__name__}: {str(error)[:300]}). "
            "Set SURGERY_DEBUG=1 to see where."
        )
    if status == 130:
        err.print("Stopped.")
    return status


def _make_streams_safe() -> None:
    """A stream that is closed is as good as /dev/null; a character that the terminal's encoding
    does not have is escaped."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    """What is still buffered can't be written: keep the interpreter from trying at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> int:
    err.print(f"[red]Error:[/red] {escape(_one_line(message))}")
    return 1


def _one_line(text: str) -> str:
    """Without line breaks and without what a terminal would obey: messages quote strangers."""
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split())
    )


def _open(spec: str) -> Base:
    from transformers.utils import logging

    from surgery.base import Base

    logging.set_verbosity_error()
    warnings.simplefilter("ignore")  # libraries' advice to programmers
    with _progress() as progress:
        return Base.open(spec, progress)


def _operation(
    base: str, plan: str, with_: list[str] | None
) -> tuple[Base, Plan, tuple[Base, Plan]]:
    """The base, the plan as it was written, and both as they are carried out: where layers of
    several bases are stacked, on the stack."""
    from surgery.stacked import stack

    found, recipe = _open(base), _recipe(plan)
    specs = _named(with_)
    if recipe:
        for note in recipe.notes:
            err.print(escape(note))
        specs = {name: model for model, name in recipe.names.items() if name} | specs
    others = {name: _open(spec) for name, spec in specs.items()}
    depths = {name: other.depth for name, other in others.items()}
    if recipe:
        from surgery.recipe import layer_tensors

        wanted = recipe.plan(found.depth, layer_tensors(found), depths)
    else:
        wanted = presets.parse(plan, found.depth) or Plan.parse(plan, found.depth, depths)
    return found, wanted, stack(found, others, wanted)


def _named(with_: list[str] | None) -> dict[str, str]:
    """The bases that are named with --with."""
    specs = {}
    for word in with_ or ():
        name, equals, spec = word.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            raise PlanError(f"“{word[:60]}” should be NAME=BASE, as in --with b=org/name.")
        specs[name] = spec
    return specs


def _recipe(text: str) -> Recipe | None:
    """What @plan.yaml holds; None for a plan that is written out."""
    if not text.startswith("@"):
        return None
    from surgery.recipe import read_file

    return read_file(Path(text[1:]).expanduser())


@contextmanager
def _progress() -> Iterator:
    """A function for the library to report to, shown as a bar on a terminal's stderr."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    tasks: dict[str, int] = {}

    def report(what: str, done: float, total: float) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(escape(what), total=total or None)
        bar.update(tasks[what], completed=done, total=total or None)

    with bar:
        yield report


def _print_json(value: dict) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _tokenizer_words(base: Base) -> str:
    if not base.has_tokenizer:
        return "none: can be operated on and saved, but not read or write text"
    return "with a chat template" if base.has_chat_template else "without a chat template"


def _numbers(values: dict) -> list[tuple[str, str]]:
    cache = values["kv_bytes_per_token"]
    return [
        ("layers", f"{values['layers']:,}"),
        ("parameters", f"{values['parameters']:,}"),
        ("  active per token", f"{values['active_parameters']:,}"),
        ("weights, MB", f"{values['bytes'] / 1e6:,.1f}"),
        ("KV cache, kB per token", "unknown" if cache is None else f"{cache / 1e3:,.2f}"),
        ("compute, GFLOPs per token", f"{values['flops_per_token'] / 1e9:,.3f}"),
    ]


def _ratios(old: dict, new: dict) -> list[str]:
    keys = (
        "layers",
        "parameters",
        "active_parameters",
        "bytes",
        "kv_bytes_per_token",
        "flops_per_token",
    )
    return [_percent(old[key], new[key]) for key in keys]


def _percent(old: float, new: float) -> str:
    return "" if not old or old == new else f"{100 * (new - old) / old:+.1f} %"
