"""Check that each layer of a plan lands where llama.cpp treats it as it did in the base."""

from __future__ import annotations

from collections.abc import Sequence

from surgery.errors import Refused

from .architectures import ARCHITECTURES, DENSE, Architecture, Every
from .file import GgufFile

MOST_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS


def architecture_of(base: GgufFile) -> Architecture:
    """What is known of the file's architecture. Raises `Refused` if nothing is."""
    known = ARCHITECTURES.get(base.architecture)
    if known is None:
        raise Refused(
            f"{base.architecture[:60]}: whether llama.cpp goes by the numbers of its layers isn't "
            "known here, so they aren't moved within a GGUF file. Operate on the safetensors "
            "version of the model, and convert the result."
        )
    return known


def check_kinds(base: GgufFile, sources: Sequence[int]) -> None:
    """Raise `Refused` if llama.cpp would treat a layer otherwise at its new position, or the model
    otherwise for its new depth. `sources` are the source layers in the plan's order."""
    known = architecture_of(base)
    if len(sources) > MOST_LAYERS:
        raise Refused(
            f"This plan has {len(sources)} layers; llama.cpp loads at most {MOST_LAYERS}."
        )
    if list(sources) == list(range(base.depth)):
        return
    _check_depth(base, known, len(sources))
    for every in known.every:
        _check_every(base, every, sources)
    if known.leading_dense:
        dense_layers(base, sources)
    if known.hybrid:
        _check_hybrid(base, known, sources)


def dense_layers(base: GgufFile, sources: Sequence[int]) -> int:
    """How many leading dense layers the plan has. Raises `Refused` if one comes later."""
    value = base.get(DENSE) or 0
    if not isinstance(value, int):
        raise Refused(f"{base.name}: {DENSE} is no number.")
    dense = [source < value for source in sources]
    count = dense.index(False) if False in dense else len(dense)
    if any(dense[count:]):
        position = dense.index(True, count)
        raise Refused(
            f"Layer {sources[position]} has a dense MLP and would become layer {position}, after "
            f"layers with experts. In {base.architecture} files dense layers come first: keep "
            f"layers 0 to {value - 1} before all others."
        )
    return count


def _check_depth(base: GgufFile, known: Architecture, depth: int) -> None:
    if known.by_depth is None or (known.depth_key and base.get(known.depth_key) is not None):
        return
    if known.by_depth(depth) != known.by_depth(base.depth):
        raise Refused(
            f"This plan makes {depth} layers of {base.depth}. llama.cpp goes by the number of "
            f"layers of a {base.architecture} file: it {known.depth_effect}. Choose a plan of "
            "another depth."
        )


def _check_every(base: GgufFile, every: Every, sources: Sequence[int]) -> None:
    if every.when and not base.get(every.when):
        return
    n = every.n
    value = base.get(every.key) if every.key else None
    if isinstance(value, int) and not isinstance(value, bool):
        n = value
    array = base.get(every.array) if every.array else None
    if isinstance(array, list):
        # Arrays move with their layers. llama.cpp reads them, but older versions go by `n`.
        others = [not _is_nth(i, n) for i in range(base.depth)]
        if [bool(entry) for entry in array] != others:
            return
    for position, source in enumerate(sources):
        if _is_nth(position, n) != _is_nth(source, n):
            kind, other = every.kinds if _is_nth(source, n) else every.kinds[::-1]
            raise Refused(
                f"Layer {source} has {kind} and would become layer {position}, where llama.cpp "
                f"computes {other}: every {_ordinal(n)} layer of a {base.architecture} file has "
                f"{every.kinds[0]}, counted from the first. Drop, repeat or move whole groups of "
                f"{n} layers, or exchange layers of one kind."
            )


def _is_nth(layer: int, n: int) -> bool:
    return n > 0 and (layer + 1) % n == 0


def _ordinal(n: int) -> str:
    last = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{last}"


def _check_hybrid(base: GgufFile, known: Architecture, sources: Sequence[int]) -> None:
    """Check that a model of several kinds of layers keeps at least one of each."""

    def kind(layer: int) -> tuple[bool, ...]:
        arrays = (base.get(key) for key in ("attention.head_count_kv", "feed_forward_length"))
        by_array = [bool(entry[layer]) for entry in arrays if isinstance(entry, list)]
        by_array += [
            bool(entry[layer])
            for every in known.every
            if isinstance(entry := base.get(every.array), list)
        ]
        return (*by_array, *(_is_nth(layer, _n(base, every)) for every in known.every))

    before = {kind(layer) for layer in range(base.depth)}
    if {kind(source) for source in sources} != before:
        raise Refused(
            f"{base.architecture} models have {len(before)} kinds of layers, and this plan drops "
            "all of one, which llama.cpp may not load. Keep at least one of each."
        )


def _n(base: GgufFile, every: Every) -> int:
    value = base.get(every.key)
    return value if isinstance(value, int) and not isinstance(value, bool) else every.n
