"""Which tensors have a row for each token, and the config with another number of rows.

They are found by building the model with another vocabulary: what changes its shape goes by token.
Models that keep something by token elsewhere are refused.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig

from surgery.errors import Refused

from .anatomy import Anatomy
from .layer_list import embedding_table

# Settings that hold token ids, in config.json and generation_config.json.
_IDS = re.compile(
    r"(_token_(id|ids|index|indices)|^(begin_)?suppress_tokens|^bad_words_ids|^force_words_ids"
    r"|^forced_decoder_ids|^sequence_bias)$"
)
# Settings about further vocabularies.
_OTHER_VOCABULARY = re.compile(r"(^|_)vocab(ulary)?_")
_SEGMENTS = "type_vocab_size"  # BERT's name for a number that has nothing to do with tokens


def with_rows(anatomy: Anatomy, rows: int) -> PreTrainedConfig:
    """Return the config of the same model with `rows` embeddings. Raises `Refused` if it has
    settings about tokens that would not follow."""
    config = copy.deepcopy(anatomy.whole)
    text = config.get_text_config(decoder=True)
    names = {"vocab_size", text.attribute_map.get("vocab_size", "vocab_size"), _SEGMENTS}
    old = getattr(text, "vocab_size", None)
    if old != embedding_table(anatomy.model).shape[0]:
        raise Refused(
            "Its embeddings can't be resized: their number is not vocab_size in the config."
        )
    for part in (config, text):
        for field, value in part.to_dict().items():
            if value and field not in names and _OTHER_VOCABULARY.search(field):
                raise Refused(
                    f"Its embeddings can't be resized: the config has {field}, so something else "
                    "in this model goes by token, too."
                )
    if getattr(config, "vocab_size", None) == old:
        config.vocab_size = rows
    text.vocab_size = rows
    return config


def token_tensors(old: Anatomy, new: Anatomy) -> frozenset[str]:
    """The names of the tensors that have a row for each token: embeddings, head, its bias.

    `old` and `new` are the model with two vocabularies. Raises `Refused` if another tensor depends
    on the vocabulary, or may.
    """
    rows, wanted = embedding_table(old.model).shape[0], embedding_table(new.model).shape[0]
    roles = _roles(old)
    found = set()
    for name, tensor in old.tensors.items():
        was, now = tuple(tensor.shape), tuple(new.tensors[name].shape)
        if was == now:
            inside = old.layer_of(name) is not None or old.is_tower(name)
            if not inside:
                check_known(name, was, rows)
        elif name in roles and was == (rows, *was[1:]) and now == (wanted, *was[1:]):
            found.add(name)
        else:
            raise _unclear(name, was)
    return frozenset(found)


def _roles(anatomy: Anatomy) -> set[str]:
    """All names of embeddings and head. BERT-like heads keep a bias beside the head's own."""
    head = anatomy.model.get_output_embeddings()
    known = [embedding_table(anatomy.model), *(head.parameters() if head is not None else ())]
    roles = {name for tensor in known for name in anatomy.names_of(tensor)}
    beside = {name.rpartition(".")[0].rpartition(".")[0] for name in roles}
    return roles | {name for owner in beside if (name := f"{owner}.bias") in anatomy.tensors}


def check_known(name: str, shape: tuple[int, ...], rows: int) -> None:
    """Raise `Refused` if a tensor that doesn't change with the vocabulary, or that the model has no
    place for, may have something for each of `rows` tokens."""
    if rows in shape:
        raise _unclear(name, shape)


def _unclear(name: str, shape: tuple[int, ...]) -> Refused:
    return Refused(
        f"Its embeddings can't be resized: it isn't clear how {name}, of shape {list(shape)}, goes "
        "by token."
    )


def check_ids(fields: Mapping[str, Any], file: str, old: int, rows: int) -> None:
    """Raise `Refused` if a setting in these fields, a config as a dict, names one of the tokens
    from `rows` up to `old`, which lose their embeddings."""
    for field, value in _fields(fields):
        if _IDS.search(field):
            lost = next((i for i in _numbers(value) if rows <= i < old), None)
            if lost is not None:
                raise Refused(
                    f"{field} in {file} is {lost:,}, which is no token of the tokenizer and would "
                    f"lose its embedding: {rows:,} of {old:,} remain. Correct {file}, or keep the "
                    "embeddings as they are."
                )


def _fields(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for field, value in fields.items():
        yield str(field), value
        if isinstance(value, Mapping):
            yield from _fields(value)


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner)
    elif type(value) is int:
        yield value


def rows_of(tensor: torch.Tensor, kept: int, more: torch.Tensor | None) -> torch.Tensor:
    """The first `kept` rows, a view; or a copy of them with `more` rows behind."""
    own = tensor[:kept]
    return own if more is None else torch.cat([own, more.to(tensor)])
