"""Who uses a page and what they may do there, as one immutable value.

The owner of a machine may do nearly everything on it. A public page is used by strangers: it opens
models from the Hub only, limits the size of each request, and reveals no path of the machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from surgery import BaseError, PlanError, SurgeryError

_HUB_ID = r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?(?:@[\w./-]+)?"
_SETTINGS = r"(?:,\s*[A-Za-z_]\w*\s*=\s*[^,\s][^,]*)*"
_PUBLIC_SPEC = re.compile(rf"(?:{_HUB_ID}|config:{_HUB_ID}{_SETTINGS})", re.ASCII)
_LONGEST_SPEC = 500
_LARGEST_COUNT = 512  # of layers, heads, experts in a config that strangers may open
_NO_REPAIR = (
    "Repair is switched off on this public page. Run the app on your own machine to repair a plan."
)
# An absolute path in a message: not the middle of a word, of org/name or of an address.
_PATH = re.compile(r"(?<![\w.:/<])(?:[A-Za-z]:[\\/]|~?/(?=[^\s/]))[^\s'\"“”’,;:()<>]*")


@dataclass(frozen=True)
class Deployment:
    """What a page allows. Sizes are in bytes, lengths in characters; None is no limit but the
    machine's own."""

    public: bool = False
    on_space: bool = False
    healing: bool = True
    measures_unasked: bool = True  # what plans cost, after each edit
    from_disk: bool = False  # weights larger than memory are read whenever they are used
    max_model_bytes: int | None = None
    max_disk_bytes: int | None = None
    max_layers: int = 4096
    max_prompt: int = 20_000
    max_text: int = 1_000_000  # of a sample that scans and scores run over
    max_training_text: int = 20_000_000  # bytes of a file that is brought along for healing
    max_new_tokens: int = 512
    max_steps: int = 1000  # of one session's undo
    people: int = 40  # per network address: its limits are a visitor's times this

    @classmethod
    def of(cls, public: bool = False, healing: bool = False, **limits: Any) -> Deployment:
        """Return the limits for strangers, or those for the machine's owner. A Space is always
        public. `healing` lets strangers train; the owner always may."""
        on_space = "SPACE_ID" in os.environ
        if not (public or on_space):
            return cls()
        return replace(
            cls(
                public=True,
                on_space=on_space,
                healing=healing,
                max_model_bytes=4_000_000_000,
                max_disk_bytes=20_000_000_000,
                max_layers=512,
                max_prompt=4_000,
                max_text=20_000,
                max_training_text=400_000,  # so that it fits into a request
                max_new_tokens=256,
                max_steps=200,
            ),
            **limits,
        )

    # ------------------------------------------------------------------ checks of requests

    def check_spec(self, spec: str) -> None:
        """Raise `BaseError` for a place that strangers may not name. The message does not reveal
        what exists on this machine."""
        if not self.public:
            return
        if len(spec) > _LONGEST_SPEC or ".." in spec or "//" in spec:
            raise _not_here()
        if not _PUBLIC_SPEC.fullmatch(spec) or spec.lower().endswith((".gguf", ".json")):
            raise _not_here()
        place = spec.removeprefix("config:").partition(",")[0]
        # The library would look for a folder of that name first.
        if place != "bundled" and _is_there(place):
            raise BaseError(f"There is no model “{place}” on the Hub: check the spelling.")

    def check_config(self, fields: Mapping) -> None:
        """Raise `BaseError` for a config with counts that only an attack has: modules are built
        before anything else about a model is known."""
        if not self.public:
            return
        for name, value in _counts(fields):
            if value > _LARGEST_COUNT:
                raise BaseError(
                    f"This public page opens no model with {name} = {value:,}: {_LARGEST_COUNT:,} "
                    "at most. Run the app on your own machine for larger ones."
                )

    def check_size(self, size: int, what: str = "The model's weights") -> None:
        """Raise `BaseError` for more bytes of weights than strangers may open or save."""
        if self.max_model_bytes is not None and size > self.max_model_bytes:
            raise BaseError(
                f"{what} take {size / 1e9:,.1f} GB, and this public page allows "
                f"{self.max_model_bytes / 1e9:,.1f} GB. Choose a smaller one, or run the app on "
                "your own machine."
            )

    def check_plan(self, layers: int) -> None:
        """Raise `PlanError` for a patient of more layers than is allowed."""
        if layers > self.max_layers:
            raise PlanError(
                f"This plan has {layers:,} layers; at most {self.max_layers:,} are allowed here."
            )

    def check_prompt(self, text: str) -> None:
        """Raise `SurgeryError` for a prompt that is too long."""
        if len(text) > self.max_prompt:
            raise SurgeryError(
                f"The prompt has {len(text):,} characters; at most {self.max_prompt:,} are allowed "
                "here. Shorten it."
            )

    def check_text(self, text: str) -> None:
        """Raise `SurgeryError` for a sample text that is too long."""
        if len(text) > self.max_text:
            raise SurgeryError(
                f"The text has {len(text):,} characters; at most {self.max_text:,} are allowed "
                "here. Shorten it."
            )

    def check_training_text(self, size: int) -> None:
        """Raise `SurgeryError` for a training text of more bytes than is allowed."""
        if size > self.max_training_text:
            raise SurgeryError(
                f"The text has {size:,} bytes; at most {self.max_training_text:,} are allowed "
                "here. Shorten it, or heal with it on the command line."
            )

    def check_healing(self) -> None:
        """Raise `SurgeryError` where strangers may not train."""
        if not self.healing:
            raise SurgeryError(
                "Healing is switched off on this public page: it needs hours of the machine. Save "
                "the patient, and heal it on your own."
            )

    @property
    def why_no_repair(self) -> str:
        """Why plans can't be repaired here; empty if they can."""
        return "" if self.healing else _NO_REPAIR

    def check_repair(self) -> None:
        """Raise `SurgeryError` where strangers may not repair plans."""
        if self.why_no_repair:
            raise SurgeryError(self.why_no_repair)

    # ------------------------------------------------------------------ messages

    def words(self, error: object) -> str:
        """Return an error's message for display: on a public page without paths of this machine."""
        text = str(error)
        return _PATH.sub("…", text) if self.public else text


def _not_here() -> BaseError:
    return BaseError(
        "On a public page models come from the Hub: write org/name, or bundled. Run the app on "
        "your own machine to open folders and files."
    )


def _is_there(place: str) -> bool:
    try:
        return Path(place).exists()
    except (OSError, ValueError):
        return False


def _counts(fields: Mapping, depth: int = 0) -> Iterator[tuple[str, int]]:
    """Names and values of a config's counts, however it is nested."""
    for name, value in fields.items():
        name = str(name)
        if isinstance(value, Mapping) and depth < 8:
            yield from _counts(value, depth + 1)
        elif type(value) is int and (
            (name.startswith(("num_", "n_")) and name != "num_labels") or "layers" in name
        ):
            if name not in ("n_positions", "n_ctx", "n_embd", "n_inner"):  # widths, not counts
                yield name, value
        elif isinstance(value, (list, tuple)) and "layer" in name:
            yield f"the length of {name}", len(value)
