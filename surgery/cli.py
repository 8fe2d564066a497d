"""The command line: `python -m surgery`. One plain line per error, never a traceback.

Knows arguments, terminals and exit codes; everything else is the library's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from . import presets
from .errors import PlanError, SurgeryError
from .plan import Plan
from .progress import Cancelled

if TYPE_CHECKING:
    from .base import Base

app = typer.Typer(
    name="surgery",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Drop, repeat and move the layers of a language model.\n\n"
    "BASE is [b]bundled[/b] (SmolLM2-135M-Instruct), a Hub id such as [b]org/name[/b] or "
    "[b]org/name@revision[/b], a folder, a [b]file.gguf[/b], or [b]config:file.json[/b] for random "
    "weights.\n\n"
    "PLAN lists the base's layers in the order in which they shall run, counted from 0, ends left "
    'out: [b]"0:13, 17:30"[/b] drops layers 13 to 16, [b]"0:22, 8:30"[/b] runs 8 to 21 twice, '
    "[b]4:8*3[/b] runs a range three times, [b]7@identity[/b] is a copy that begins as the "
    "identity. Or a preset: " + ", ".join(f"[b]{name}[/b]" for name in presets.PRESETS) + ", with "
    'values as in [b]"solar m=8"[/b].',
)
err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False)

BaseArgument = Annotated[str, typer.Argument(metavar="BASE", help="The model to operate on.")]
PlanArgument = Annotated[str, typer.Argument(metavar="PLAN", help="Its layers, in running order.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def inspect(base: BaseArgument, as_json: JsonOption = False) -> None:
    """Show what a base is: layers, parameters, memory. Reads no weights."""
    found = _open(base)
    whole = asdict(found.preview(Plan.whole(found.depth)))
    facts = {
        "name": found.name,
        "kind": found.kind,
        "architecture": found.architecture,
        "dtype": found.dtype,
        "depth": found.depth,
        "layer_kinds": list(found.kinds) if any(found.kinds) else None,
        "has_tokenizer": found.has_tokenizer,
        "has_chat_template": found.has_chat_template,
        "licence": found.source.licence,
        "note": found.note or None,
        **whole,
    }
    if as_json:
        _print_json(facts)
        return
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
    for name, value in whole["by_component"].items():
        table.add_row(f"  {name}", f"{value:,}")
    if any(found.kinds):
        for i, kind in enumerate(found.kinds):
            table.add_row(f"  layer {i}", escape(kind))
    out.print(table)


@app.command()
def preview(base: BaseArgument, plan: PlanArgument, as_json: JsonOption = False) -> None:
    """Show what a plan would make of a base: size, cache, compute. Reads no weights."""
    found = _open(base)
    wanted = _plan(plan, found.depth)
    before, after = found.preview(Plan.whole(found.depth)), found.preview(wanted)
    if as_json:
        _print_json(
            {
                "base": found.name,
                "plan": str(wanted),
                "changes": wanted.describe(),
                "dtype": found.dtype,
                **asdict(after),
                "before": asdict(before),
            }
        )
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", found.name, "patient", ""):
        table.add_column(escape(heading), justify="left" if not heading else "right")
    old, new = asdict(before), asdict(after)
    rows = [*zip(_numbers(old), _numbers(new), _ratios(old, new), strict=True)]
    for (label, a), (_, b), change in rows:
        table.add_row(label, a, b, change)
    for name, value in old["by_component"].items():
        now = new["by_component"].get(name, 0)
        table.add_row(f"  {name}", f"{value:,}", f"{now:,}", _percent(value, now))
    out.print(f"{escape(str(wanted))}  ({wanted.describe()})\n")
    out.print(table)


@app.command()
def generate(
    base: BaseArgument,
    plan: PlanArgument,
    prompt: Annotated[str, typer.Option(help="The text to go on from.")],
    max_new_tokens: Annotated[int, typer.Option(help="Stop after so many tokens.")] = 64,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the likeliest token.")] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same text.")] = 0,
    temperature: Annotated[float, typer.Option(help="Above 0; higher is wilder.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Share of probability to draw from.")] = 0.95,
    chat: Annotated[bool, typer.Option("--chat", help="Use the base's chat template.")] = False,
) -> None:
    """Operate, and let the patient speak: the text goes to stdout as it comes."""
    found = _open(base)
    wanted = _plan(plan, found.depth)
    with _progress() as progress:
        found.load(progress)
    patient = found.operate(wanted)
    stream = patient.stream(
        prompt,
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


@app.command()
def save(
    base: BaseArgument,
    plan: PlanArgument,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    dtype: Annotated[
        str | None, typer.Option(help="Convert weights: float32, float16 or bfloat16.")
    ] = None,
    shard_size: Annotated[str, typer.Option(help="The most that one file holds.")] = "5GB",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the patient as a checkpoint that transformers loads: whole, or not at all."""
    found = _open(base)
    wanted = _plan(plan, found.depth)
    with _progress() as progress:
        path = found.save(
            wanted,
            folder,
            dtype=dtype,
            shard_size=shard_size,
            overwrite=overwrite,
            progress=progress,
        )
    files = sorted((p.name, p.stat().st_size) for p in path.iterdir())
    if as_json:
        _print_json({"folder": str(path), "files": dict(files)})
        return
    after = found.preview(wanted)
    out.print(
        f"{escape(str(path))}: {after.layers} layers, {after.parameters:,} parameters, "
        f"{sum(size for _, size in files) / 1e6:,.1f} MB in {len(files)} files"
    )


def main() -> int:
    """Run the command line. Returns the exit status: 0, 1 for an error, 2 for wrong usage."""
    try:
        return app(standalone_mode=False) or 0
    except (KeyboardInterrupt, Cancelled):
        err.print("Stopped.")
        return 130
    except typer.Exit as end:
        return end.exit_code
    except SurgeryError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # Whoever read our output has had enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if hasattr(error, "format_message"):  # wrong usage, in click's words
            context = getattr(error, "ctx", None)
            where = context.command_path if context else "python -m surgery"
            err.print(f"{escape(error.format_message())} Try: {where} --help")
            return 2
        if os.environ.get("SURGERY_DEBUG"):
            raise
        said = " ".join(str(error).split())[:300]
        return _fail(
            f"Something went wrong that should not ({type(error).__name__}: {said}). "
            "Set SURGERY_DEBUG=1 to see where."
        )


def _fail(message: str) -> int:
    err.print(f"[red]Error:[/red] {escape(message)}")
    return 1


def _open(spec: str) -> Base:
    from transformers.utils import logging

    from .base import Base

    logging.set_verbosity_error()
    with _progress() as progress:
        return Base.open(spec, progress)


def _plan(text: str, depth: int) -> Plan:
    if text.startswith("@"):
        raise PlanError("Recipe files can't be read yet: write the plan as ranges.")
    return presets.parse(text, depth) or Plan.parse(text, depth)


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
