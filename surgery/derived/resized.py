"""A base with as many embeddings as its tokenizer has ids.

Rows that belong to no token are cut off. Tokens that were added to the tokenizer alone get the mean
of the base's rows, in the embeddings and in the head. transformers' `resize_token_embeddings` draws
new rows from a distribution around that mean; here nothing is random. All other rows keep their
bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from surgery.architecture import Anatomy
from surgery.architecture.apply.build import assemble
from surgery.architecture.inspect.names import disk_layers, loader_names
from surgery.architecture.inspect.vocabulary import (
    check_ids,
    check_known,
    rows_of,
    token_tensors,
    with_rows,
)
from surgery.base import Base
from surgery.counts import StoredBytes
from surgery.errors import Refused
from surgery.lazy_property import lazy_property
from surgery.memory.shared_weights import share
from surgery.progress import Progress, current, silent
from surgery.sources import Tensor
from surgery.sources.folder import read_json
from surgery.sources.source import Opener
from surgery.sources.token_rows import NewRows, TokenRows, check_plain, mean_row

from .stacked import Stack

_MOST = 4  # times as many rows as the base has: more is a mistake in the tokenizer's files


def resize_embeddings(base: Base) -> Base:
    """Return the base with as many embeddings as its tokenizer has ids, its highest id and one; the
    base itself if it has them already.

    The result is previewed, operated and saved like any other base. Its weights are the base's, but
    where rows are added: then embeddings and head are in memory once more. Raises `Refused` if it
    can't be done right, with the reason.
    """
    if base.is_quantized:
        raise Refused(
            f"The weights of {base.name} are quantized, so its embeddings can't be resized: resize "
            "those of the unquantized model, and quantize that."
        )
    for part in base.bases.values() if isinstance(base, Stack) else (base,):
        if part.kind == "gguf":
            raise Refused(
                f"{part.name} is a GGUF file, whose tokenizer is rebuilt when it is opened and may "
                "get tokens that the file doesn't have. Resize the model that it was made from."
            )
    if not base.has_tokenizer:
        raise Refused(f"{base.name} has no tokenizer, so its embeddings can't be resized to it.")
    rows = max(base.tokenizer.get_vocab().values()) + 1
    return base if rows == base.known_tokens else Resized(base, rows)


class Resized(Base):
    """`base` with `rows` embeddings. `resized` is their number before and after.

    The first `kept` are the base's, by default as many as there are; `new_rows` makes the others,
    by default from the mean. `note` says for people what was done.
    """

    def __init__(
        self,
        base: Base,
        rows: int,
        kept: int | None = None,
        new_rows: NewRows | None = None,
        note: str = "",
    ) -> None:
        self.base = base
        self.resized = (base.known_tokens, rows)
        old = base.known_tokens
        if not 0 < rows <= _MOST * old:
            raise Refused(
                f"The tokenizer of {base.name} has ids up to {rows - 1:,}, and the model {old:,} "
                "embeddings: the tokenizer belongs to another model."
            )
        config = with_rows(base.anatomy, rows)
        kept = min(old, rows) if kept is None else kept
        check_ids(config.to_dict(), "config.json", old, kept)
        _check_generation_config(base, old, kept)
        new = Anatomy.of(config)
        other = new if rows != old else Anatomy.of(with_rows(base.anatomy, old + 1))
        self._names = token_tensors(base.anatomy, other)
        self._rows = TokenRows(kept, rows, new_rows or _mean_rows(rows - old))
        source, open_range = base.source, base.source.open_range
        super().__init__(
            replace(
                source,
                kind="resized",
                config=config,
                identity=f"resized:{rows}:{source.identity}",
                tensors=self._resized_tensors(source.tensors),
                note="; ".join(part for part in (base.note, note or in_words(old, rows)) if part),
                open_range=self._rows.opener(open_range) if open_range else None,
                open_unwritten=None,
            )
        )
        self.anatomy = new

    @property
    def original(self) -> Base:
        """The base."""
        return self.base

    @property
    def recipe_name(self) -> str:
        """The base's."""
        return self.base.recipe_name

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """The base's."""
        return self.base.parts

    def local_files(self) -> Iterable[Path]:
        """The base's files."""
        return self.base.local_files()

    @lazy_property
    def stored_bytes(self) -> StoredBytes | None:
        """Bytes of the stored tensors by layer, with the resized ones; None if nothing is stored
        yet. The base is checked first."""
        if (before := self.base.stored_bytes) is None:
            return None
        tensors, own = self.source.tensors, self.base.source.tensors
        more = sum(_size(tensors[name]) - _size(own[name]) for name in own)
        return replace(before, outside=before.outside + more)

    def load(self, progress: Progress = silent) -> PreTrainedModel:
        """The base's parameters, with other embeddings: views of its own, or copies with more
        rows."""
        model = self.base.load(progress)
        with self._loading.taken(progress) as report:
            if self._model is None:
                new = assemble(self.anatomy, model, lambda name: (model, name))
                more = self._more(report)
                for name in self._names:
                    tensor = self.anatomy.tensors[name]
                    first, *tied = self.anatomy.names_of(tensor)
                    if name == first:
                        value = rows_of(new.get_parameter(name), self._rows.kept, more.get(name))
                        _put(new, (first, *tied), value)
                self._model = share(new)
            return self._model

    def stored(self, progress: Progress = silent) -> tuple[Path, Mapping[str, Tensor]]:
        """The base's folder and tensors, embeddings without the rows that are cut off. Raises
        `Refused` for added rows, which no file has."""
        if self._rows.count > self._rows.kept:
            raise Refused(
                f"The added embeddings of {self.name} are in no file yet: save it, and use that."
            )
        folder, tensors = self.base.stored(progress)
        return folder, self._resized_tensors(tensors)

    def open_stored(self, progress: Progress = silent) -> tuple[Path, Mapping[str, Tensor], Opener]:
        """The base's folder, the resized tensors, and a function that opens parts of them."""
        folder, tensors, opener = self.base.open_stored(progress)
        return folder, self._resized_tensors(tensors), self._rows.opener(opener)

    def _more(self, progress: Progress) -> dict[str, torch.Tensor]:
        """{parameter: its new rows}, under the first of its names."""
        if self._rows.count == self._rows.kept:
            return {}
        _, stored, opener = self.base.open_stored(progress)
        self._resized_tensors(stored)
        found, translate = {}, loader_names(self.anatomy)
        for name in stored:
            if (rows := self._rows.more(name, opener)) is not None:
                tensor = self.anatomy.tensors[translate(name)]
                found[self.anatomy.names_of(tensor)[0]] = rows
        return found

    def _resized_tensors(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Stored tensors with other numbers of rows, those of embeddings and head. Raises
        `SurgeryError` if they aren't stored as the model has them."""
        own, translate = self.base.anatomy.tensors, loader_names(self.base.anatomy)
        names = {name for name in stored if translate(name) in self._names}
        for name in names:
            check_plain(name, stored[name], tuple(own[translate(name)].shape))
        layers = disk_layers(self.base.anatomy, stored) if stored else {}
        for name, where in layers.items():
            if where is None and translate(name) not in own:
                check_known(name, stored[name].shape, self.base.known_tokens)
        return self._rows.tensors(stored, names)


def _put(model: PreTrainedModel, names: Iterable[str], value: torch.Tensor) -> None:
    """Set a parameter under all of its names."""
    made = nn.Parameter(value.detach(), requires_grad=False)
    for name in names:
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner)._parameters[leaf] = made


def _mean_rows(count: int) -> NewRows:
    """A function that makes `count` new rows, each the mean of the stored ones."""
    return lambda name, tensor, open_: mean_row(tensor, open_).repeat(
        count, *(1,) * (len(tensor.shape) - 1)
    )


def _size(tensor: Tensor) -> int:
    return tensor.end - tensor.start


def in_words(old: int, rows: int) -> str:
    """What was done, for people."""
    if rows < old:
        return f"cropped from {old:,} to {rows:,} embeddings: {old - rows:,} belonged to no token"
    return f"extended from {old:,} to {rows:,} embeddings: new ones are the mean of the old"


def _check_generation_config(base: Base, old: int, rows: int) -> None:
    folder = base.source.tokenizer_folder(current())
    name = "generation_config.json"
    if folder is not None and (folder / name).is_file():
        check_ids(read_json(folder / name), name, old, rows)
