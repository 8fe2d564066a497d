"""Verify a saved GGUF file against its base: metadata, and each tensor's name, type and bytes.

The headers are read anew from the finished files; only the layout is shared with the writer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from surgery.checkpoint.tensor_spec import Opener, TensorSpec
from surgery.checkpoint.writer import differing
from surgery.errors import BaseError, PlanError, SaveError
from surgery.io.copy import opener_of
from surgery.plan import Plan
from surgery.progress import Meter, Progress

from .file import GgufFile, open_gguf_file
from .layout import Layout, lay_out
from .metadata import BASE, PLAN, VERSION


def verify_gguf(out: Path, base: Path | None, progress: Progress) -> tuple[int, int]:
    """Verify a GGUF file that `save_gguf` wrote, by the plan in its metadata. `base` is found by
    its recorded name beside `out` or in the working directory if it isn't given.

    Returns the numbers of tensors and of their bytes. Raises `SaveError` that names the difference,
    or another `SurgeryError`.
    """
    layout = recorded(open_gguf_file(out), base)
    check_files(out, layout, opener_of(Path()), progress)
    return len(layout.tensors), layout.size


def recorded(written: GgufFile, base: Path | None) -> Layout:
    """The layout that a saved file should have, from the plan that it records. Raises
    `SaveError`."""
    plan, name = (_text(written, key) for key in (PLAN, BASE))
    if plan is None or name is None:
        raise SaveError(
            f"{written.name} records no plan ({PLAN}): only what was saved here can be verified."
        )
    opened = open_gguf_file(base or _found(written, name))
    try:
        return lay_out(opened, Plan.parse(plan, opened.depth))
    except PlanError as error:
        raise SaveError(f"The plan in {written.name} can't be read: {error}") from error


def check_files(out: Path, layout: Layout, opener: Opener, progress: Progress) -> None:
    """Compare a file, or its pieces, with the layout that they should have. Raises `SaveError`."""
    written = open_gguf_file(out)
    fail = _failing(out)
    expected = {key: value for key, value in layout.fields.items() if key != VERSION}
    fields = {key: value for key, value in written.fields.items() if key != VERSION}
    for key in expected.keys() | fields.keys():
        if expected.get(key) != fields.get(key):
            fail(f"its metadata differs at {key[:80]}")
    found = {tensor.name: tensor for tensor in written.tensors}
    wanted = {placed.spec.name: placed for placed in layout.tensors}
    for name in wanted.keys() | found.keys():
        if name not in found:
            fail(f"{name} is missing")
        if name not in wanted:
            fail(f"{name[:80]} does not belong there")
        source, tensor = wanted[name].source, found[name]
        if (tensor.type, tensor.shape) != (source.type, source.shape):
            fail(f"{name} is {tensor.type.name} {list(tensor.shape)}")
    places: dict[Path, list[tuple[TensorSpec, int]]] = {}
    for tensor in written.tensors:
        places.setdefault(tensor.file, []).append((wanted[tensor.name].spec, tensor.start))
    meter = Meter(progress, "Verifying", layout.size)
    if wrong := differing(places, opener, meter):
        fail(f"the bytes of {min(wrong)} differ from the base's ({len(wrong)} in all)")
    _check_padding(written, fail)


def _check_padding(written: GgufFile, fail: Callable[[str], None]) -> None:
    """Check that each file ends with its last tensor and its padding."""
    for path in written.files:
        end = max(t.start + t.size for t in written.tensors if t.file == path)
        if path.stat().st_size != end + -end % written.alignment:
            fail(f"{path.name} has another length than its tensors")


def _failing(out: Path) -> Callable[[str], None]:
    def fail(problem: str) -> None:
        raise SaveError(f"{out.name} is not what its plan says: {problem}. Save it again.")

    return fail


def _text(file: GgufFile, key: str) -> str | None:
    found = file.fields.get(key)
    value = found.value if found is not None else None
    return value if isinstance(value, str) else None


def _found(written: GgufFile, name: str) -> Path:
    if Path(name).name == name:
        for folder in (written.files[0].parent, Path()):
            if (path := folder / name).is_file() and not path.samefile(written.files[0]):
                return path
    raise BaseError(f"The base, {name[:80]}, isn't beside it. Name it: verify OUT.gguf BASE.gguf.")
