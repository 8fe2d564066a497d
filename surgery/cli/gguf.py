"""What `save` and `verify` do with GGUF files, without importing torch."""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from surgery import __version__, presets
from surgery.errors import Refused, SaveError
from surgery.plan import Plan

from .common import err, open_operation, out, print_json, progress_bar, read_recipe
from .reports.verify import run_as_dict

if TYPE_CHECKING:
    from surgery.gguf import GgufFile, Saved
    from surgery.gguf.llama_cpp import LlamaCpp

SUFFIX = ".gguf"


def is_gguf(path: object) -> bool:
    """Whether a path names a GGUF file."""
    return str(path).strip().lower().endswith(SUFFIX)


def read_plan(base: GgufFile, text: str) -> Plan:
    """The plan that is written out, a preset, or a recipe without scales. Raises `PlanError` or
    `Refused`."""
    if recipe := read_recipe(text):
        if recipe.saved_dtype:
            raise Refused(
                "The recipe converts weights, and a GGUF file's are only copied. Remove `dtype`."
            )
        if len(recipe.names) > 1:
            raise Refused("Layers of several bases can't be saved as one GGUF file.")
        recipe.check_adapters({"": False})
        levels = [recipe.parameters, *(part.parameters for part in recipe.slices)]
        levels += [part.sources[0].parameters for part in recipe.slices]
        if any(level.scale is not None for level in levels):
            raise Refused(
                "The recipe scales tensors by names that a GGUF file doesn't have: write the plan "
                "out, with @identity or @scale."
            )
        return recipe.plan(base.depth, ())
    return presets.parse(text, base.depth) or Plan.parse(text, base.depth)


def save_file(
    spec: str,
    plan: str,
    target: Path,
    *,
    shard_size: str | None,
    overwrite: bool,
    verified: bool,
    as_json: bool,
) -> None:
    """Save a plan of one GGUF file as another, and print what was written."""
    from surgery.gguf import open_gguf_file, save_gguf
    from surgery.io.sizes import parse_size

    base = open_gguf_file(Path(spec.strip()).expanduser())
    made = read_plan(base, plan)
    with progress_bar() as progress:
        saved = save_gguf(
            base,
            made,
            target,
            shard_size=None if shard_size is None else parse_size(shard_size),
            overwrite=overwrite,
            verified=verified,
            progress=progress,
        )
    print_saved(saved, as_json)


def convert_base(
    spec: str,
    plan: str,
    target: Path,
    with_: list[str] | None,
    converter: Path | None,
    dtype: str | None,
    overwrite: bool,
    verified: bool,
    as_json: bool,
) -> None:
    """Save a plan of another base as GGUF with llama.cpp's converter, and print what was written
    and how."""
    from surgery.gguf.convert import command, convert, find_converter

    script = find_converter(converter, spec, plan, target)
    _, _, (made, flat) = open_operation(spec, plan, with_)
    shown = shlex.join(command(script, Path("FOLDER"), target))
    err.print(f"[dim]{escape(shown)}[/dim]")
    with progress_bar() as progress:
        saved = convert(
            lambda folder: made.save(
                flat, folder, dtype=dtype, verified=verified, progress=progress
            ),
            script,
            target,
            made.preview(flat).bytes,
            len(flat),
            overwrite=overwrite,
            progress=progress,
        )
    print_saved(saved, as_json)


def verify_file(
    target: Path, base: str | None, run: bool, llama_cpp: Path | None, card: bool, as_json: bool
) -> None:
    """Verify a saved GGUF file, run it if asked to, and print what held. `card` also lists it in
    the model card beside the file, with the file's name."""
    from surgery.checkpoint.card_proofs import Proof, check_card, withdraw, write_proof
    from surgery.gguf import verify_gguf
    from surgery.gguf.llama_cpp import find_llama_cpp

    named = Path(base.strip()).expanduser() if base else None
    runtime = find_llama_cpp(llama_cpp) if run or llama_cpp else None
    ours = f"Layer Surgery, {target.name}"
    if card:
        check_card(target.parent)
    try:
        with progress_bar() as progress:
            count, size = verify_gguf(target, named, progress)
    except SaveError:
        if card:
            withdraw(target.parent, ours)
            withdraw(target.parent, _name_in_card(target))
        raise
    held = f"{count:,} tensors, {size / 1e6:,.1f} MB, all as planned"
    if card:
        write_proof(target.parent, Proof(ours, __version__, held))
    if not as_json:
        out.print(f"{escape(str(target))}: {held}")
    runs = [_run(target, named, runtime, card, as_json)] if runtime else []
    if as_json:
        print_json({"saved": str(target), "tensors": count, "bytes": size, "runs": runs})


def _run(
    target: Path, base: Path | None, runtime: LlamaCpp, card: bool, as_json: bool
) -> dict[str, object]:
    """Run a file, print what held unless JSON is asked for, and write it into the card if that is.
    Returns what JSON says of it."""
    from transformers.utils import logging

    from surgery.checkpoint.card_proofs import Proof, withdraw, write_proof
    from surgery.verification.llama_cpp import verify_runtime

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")  # libraries' advice to programmers
    try:
        with progress_bar() as progress:
            found = verify_runtime(target, base, runtime, progress)
            version = runtime.version(progress) if card or as_json else ""
    except SaveError:
        if card:
            withdraw(target.parent, _name_in_card(target))
        raise
    held = (
        f"{found.equal} of {found.tokens} greedy tokens match the patient's; llama.cpp's are "
        f"{found.mean:.4f} nats less likely on average, {found.largest:.2f} at most"
    )
    if card:
        write_proof(
            target.parent, Proof(_name_in_card(target), f"{runtime} {version}".strip(), held)
        )
    if not as_json:
        out.print(f"{escape(str(runtime))}: {held}")
    return run_as_dict("llama.cpp", version, found, None)


def _name_in_card(target: Path) -> str:
    return f"llama.cpp, {target.name}"


def print_saved(saved: Saved, as_json: bool) -> None:
    """Print the files that were written, and what the model in them is."""
    sizes = {str(path): path.stat().st_size for path in saved.files}
    if as_json:
        print_json({"folder": str(saved.files[0].parent), "files": sizes})
        return
    more = f" and {len(sizes) - 1} more files" if len(sizes) > 1 else ""
    out.print(
        f"{escape(str(saved.files[0]))}{more}: {saved.layers} layers, {saved.values:,} "
        f"parameters, {saved.bytes / 1e6:,.1f} MB"
    )
