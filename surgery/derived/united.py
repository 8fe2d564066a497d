"""Stacks whose bases have added different tokens, with the tokens of all of them.

Two fine-tunes of one model often have other special tokens at the same ids. All ids of the first
base stay. Tokens that only a later base has added are appended as added tokens, in the order of
bases and ids, with their rows of that base's embeddings and head. Everything else about tokens is
the first's, as in every stack: rows, ids in the config, chat template.
"""

from __future__ import annotations

import copy
import shutil
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from surgery.architecture.inspect.names import loader_names
from surgery.base import Base
from surgery.errors import Refused, one_line
from surgery.io.ownership import temporary
from surgery.plan import Plan
from surgery.progress import current
from surgery.sources import Tensor
from surgery.sources.companions import companions
from surgery.sources.source import Opener
from surgery.sources.token_rows import check_plain, read_rows

from .resized import Resized
from .stacked import Stack, check_agree, stack

_SHOWN = 8  # tokens in a note


@dataclass(frozen=True)
class Appended:
    """A token that the base called `base` has added, and its id there."""

    base: str
    token: AddedToken
    id: int


def stack_united(base: Base, others: Mapping[str, Base], plan: Plan) -> tuple[Base, Plan]:
    """Stack as `stack` does, with the tokens that later bases have added appended to the first's.

    Raises `Refused` if a tokenizer isn't a fast one, if the vocabularies differ in other than added
    tokens, or as `stack` and `resize_embeddings` do.
    """
    made, flat = stack(base, others, plan, any_vocabulary=True)
    if not isinstance(made, Stack):
        return made, flat
    new = _appended(made.bases)
    first, *later = made.bases.values()
    ours = first.tokenizer.get_vocab()
    if all(other.tokenizer.get_vocab() == ours for other in later):
        return stack(base, others, plan)
    return United(made, new), flat


def _appended(bases: Mapping[str, Base]) -> list[Appended]:
    """The tokens that only a later base has. Raises `Refused`."""
    for base in bases.values():
        if not (base.has_tokenizer and base.tokenizer.is_fast):
            raise Refused(
                f"{base.name} has no fast tokenizer (tokenizer.json), so it can't be known which "
                "of its tokens were added."
            )
    first, *_ = bases.values()
    known = set(first.tokenizer.get_vocab())
    found = []
    for name, base in bases.items():
        hint = " A union needs the same vocabularies but for added tokens."
        check_agree(first.name, _own(first.tokenizer), base.name, _own(base.tokenizer), hint)
        for i, token in sorted(base.tokenizer.added_tokens_decoder.items()):
            if token.content in known:
                continue
            if i >= base.known_tokens:
                raise Refused(
                    f"“{token.content[:40]}” is token {i:,} of {base.name}, which has embeddings "
                    f"only for the first {base.known_tokens:,}: save it with --resize-embeddings "
                    "first, and stack that."
                )
            known.add(token.content)
            found.append(Appended(name, token, i))
    return found


def _own(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The vocabulary without added tokens."""
    return tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)


class United(Resized):
    """A stack with `new` tokens behind those of its first base."""

    union = True

    def __init__(self, made: Stack, new: list[Appended]) -> None:
        first = next(iter(made.bases.values()))
        ids = max(first.tokenizer.get_vocab().values()) + 1
        if ids > first.known_tokens:
            raise Refused(
                f"The tokenizer of {first.name} has {ids:,} ids, and the model "
                f"{first.known_tokens:,} embeddings: save it with --resize-embeddings first, and "
                "stack that."
            )
        self._new, self._bases = new, made.bases
        super().__init__(made, ids + len(new), ids, self._rows_of_others, _in_words(new, made))
        self._folder = _tokenizer_folder(first, self, new, ids)
        for name in dict.fromkeys(one.base for one in new):
            other = self._bases[name]
            for key, tensor in made.source.tensors.items():
                if loader_names(self.anatomy)(key) in self._names and other.source.tensors:
                    self._counterpart(key, tensor, other, other.source.tensors)
        folder = self._folder
        self.source = replace(self.source, get_tokenizer=lambda progress: folder)

    def _rows_of_others(self, name: str, tensor: Tensor, open_: Opener) -> torch.Tensor:
        """The new tokens' rows, each from its own base."""
        opened = {one.base: self._bases[one.base].open_stored(current()) for one in self._new}
        rows = []
        for one in self._new:
            _, stored, opener = opened[one.base]
            found = self._counterpart(name, tensor, self._bases[one.base], stored)
            rows.append(read_rows(found, one.id, 1, opener))
        return torch.cat(rows)

    def _counterpart(
        self, name: str, tensor: Tensor, other: Base, stored: Mapping[str, Tensor]
    ) -> Tensor:
        """The same tensor of another base. Raises `Refused` if it is stored in another dtype."""
        memory, translate = loader_names(self.anatomy)(name), loader_names(other.anatomy)
        same = other.anatomy.names_of(other.anatomy.tensors[memory])
        key = next(key for key in stored if translate(key) in same)
        found = stored[key]
        check_plain(key, found, tuple(other.anatomy.tensors[memory].shape))
        if found.dtype != tensor.dtype:
            raise Refused(
                f"{name} is stored as {tensor.dtype} in one base and as {found.dtype} in "
                f"{other.name}. Save one of them in the other's dtype first, and stack that."
            )
        return found


def _tokenizer_folder(first: Base, united: Base, new: list[Appended], ids: int) -> Path:
    """Write the tokenizer of a union, and what else is about text, into a folder that is removed
    with the base. Raises `Refused` if it isn't read again as it should be."""
    folder, remove = temporary("layer-surgery-")
    weakref.finalize(united, remove)
    home = first.source.tokenizer_folder(current())
    assert home is not None  # it has a tokenizer
    for name in companions(home, needed_only=True):
        if name.endswith(("generation_config.json", "processor_config.json", ".jinja")):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(home / name, folder / name)
    united.source.config.save_pretrained(folder)  # which names the tokenizer's class
    words = copy.deepcopy(first.tokenizer)
    for one in new:
        words.add_tokens([one.token])
    words.save_pretrained(folder)
    expected = first.tokenizer.get_vocab()
    expected |= {one.token.content: ids + n for n, one in enumerate(new)}
    try:
        read = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # it fails in as many ways as there are tokenizers
        raise Refused(
            f"The united tokenizer can't be read again: “{one_line(error, 200)}”."
        ) from error
    if read.get_vocab() != expected:
        raise Refused(
            f"The tokenizer of {first.name} doesn't take the added tokens of the others at the "
            "end, so the vocabularies can't be united."
        )
    return folder


def _in_words(new: list[Appended], made: Stack) -> str:
    """What was added, for people."""
    if not new:
        return "ids of the first base"
    count = len(new)
    shown = ", ".join(one.token.content for one in new[:_SHOWN]) + ", …" * (count > _SHOWN)
    names = ", ".join(dict.fromkeys(made.bases[one.base].name for one in new))
    return f"extended by {count:,} added token{'s' * (count > 1)} of {names}: {shown}"
