"""The program `python -m surgery`: its help, version, errors and exit statuses.

An error is one plain line on stderr, never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from surgery import __version__, presets
from surgery.errors import SurgeryError
from surgery.initialisers import INITIALISERS
from surgery.progress import Cancelled

from .commands import COMMANDS, load, summary
from .common import err

INSTALLED = "layer-surgery"  # the command that the package installs
PROGRAM = INSTALLED if Path(sys.argv[0]).stem == INSTALLED else "python -m surgery"
_PRESETS = "\n".join(
    f"  {' '.join([name, *(f'{p.name}=N' for p in preset.parameters)]):<29}{preset.hint}"
    for name, preset in presets.PRESETS.items()
)
_INITIALISERS = "\n".join(
    f"  {'@' + initialiser.notation:<29}{initialiser.hint}" for initialiser in INITIALISERS.values()
)
_EPILOG = "`python -m surgery --help` says how to write BASE and PLAN."
# Click reflows a paragraph unless it begins with \b.
HELP = f"""Drop, repeat and move the layers of a language model.

\b
BASE is the model to operate on:
  bundled                      SmolLM2-135M-Instruct, 30 layers
  org/name, org/name@revision  a model on the Hugging Face Hub
  path/to/folder               safetensors with their config.json
  path/to/file.gguf            a GGUF file: dequantized to run it,
                               copied to save another file.gguf
  config:path/to/config.json   a config alone, with random weights
  BASE+ADAPTER                 with a LoRA merged into its weights:
                               a folder, or org/name on the Hub

\b
PLAN lists its layers in running order. Layers count from
0, and a range excludes its end. With 30 layers:
  "0:13, 17:30"                drops layers 13 to 16
  "0:22, 8:30"                 runs layers 8 to 21 twice
  "0:8, 8:12*3, 12:30"         runs layers 8 to 11 three times
  "0:8, 7@identity, 8:30"      adds a layer 7 initialised as the identity

\b
Layers have the weights of their source, unless an initialiser follows:
{_INITIALISERS}

\b
Or PLAN is a preset; values that are omitted depend on the depth:
{_PRESETS}

\b
Or PLAN is @file.yaml, a recipe as mergekit's passthrough method reads it.

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

Exit status: 0 for success, 1 for an error, 2 for wrong usage, 130 if stopped.
"""


def program(*loaded: str) -> typer.Typer:
    """The program with those of its commands that are `loaded`. The others are only listed, with
    their summaries if none is loaded: importing all takes longer than most commands run."""
    # No markup mode: plain text has no boxes, and keeps the paragraphs above as they are.
    app = typer.Typer(
        name="surgery",
        help=HELP,
        context_settings={"help_option_names": ["-h", "--help"]},
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    for name in COMMANDS:
        if name in loaded:
            app.command(name, epilog=_EPILOG)(load(name))
        else:
            app.command(name, help="" if loaded else summary(name))(_not_loaded)
    return app


def _not_loaded() -> None:
    raise AssertionError("a command was run that isn't loaded")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{INSTALLED} {__version__}")
        raise typer.Exit()


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of the program itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, 1 for an error, 2 for wrong usage, 130 if
    it was stopped."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _make_streams_safe()
    try:
        app = program(*[name for name in arguments[:1] if not name.startswith("-")])
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
        return _fail(f"{error.strerror or error}{place}.")
    except Exception as error:
        if hasattr(error, "format_message"):  # wrong usage, in click's words
            context = getattr(error, "ctx", None)
            where = context.command_path if context else PROGRAM
            message = error.format_message().rstrip(".")
            err.print(escape(_one_line(f"{message}. Try: {where} --help")))
            return 2
        if os.environ.get("SURGERY_DEBUG"):
            raise
        return _fail(
            f"Internal error ({type(error).__name__}: {str(error)[:300]}). "
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
