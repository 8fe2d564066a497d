"""Several bases of one shape as one base: the layers of all, one base after the other.

A plan that names layers of other bases (`0:16, b/8:24`) becomes a plain plan of such a stack, which
works like any other base. The embeddings come from the base of the first layer, as do the token
ids, the tokenizer, the generation config and other settings that may differ. The final norm and the
head come from the base of the last layer. Where vocabularies differ in size but agree on the tokens
that both have (padding, added tokens), the head comes from the first base too, since it has to fit
the tokenizer. Nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedModel

from surgery.architecture import Anatomy
from surgery.architecture.apply.build import assemble
from surgery.architecture.apply.combine import check_tied, combine, head_of, outer_parts
from surgery.architecture.inspect.names import disk_layers, loader_names
from surgery.base import Base
from surgery.errors import Refused
from surgery.lazy_property import lazy_property
from surgery.memory.shared_weights import share
from surgery.plan import Layer, Plan
from surgery.progress import Progress, silent
from surgery.sources import Source, Tensor

_SHOWN = 3  # tokens that don't agree


def stack(
    base: Base, others: Mapping[str, Base], plan: Plan, any_vocabulary: bool = False
) -> tuple[Base, Plan]:
    """Return the stack that a plan of several bases is made of, and the plan in terms of it.

    `others` are the bases by the names that the plan uses for them. If the plan has layers of only
    one base, that base is returned. Raises `Refused` with the mismatch if the bases don't fit
    together. With `any_vocabulary` the embeddings and the head are the first's whatever tokens the
    others have; `stack_united` adds these.
    """
    known = {"": base, **others}
    used = list(dict.fromkeys(layer.base for layer in plan.layers))
    if used == [""]:
        return base, plan
    if len(used) == 1:
        only = known[used[0]]
        return only, Plan(tuple(replace(x, base="") for x in plan.layers), only.depth)
    made = Stack({name: known[name] for name in used}, plan.layers[-1].base, any_vocabulary)
    layers = (Layer(made.offset[x.base] + x.source, x.init) for x in plan.layers)
    return made, Plan(tuple(layers), made.depth)


class Stack(Base):
    """A base made of the layers of several. `offset` is the first layer of each.

    The first of `bases` provides the modules before the layers, the one named `last` those after.
    """

    def __init__(self, bases: Mapping[str, Base], last: str, any_vocabulary: bool = False) -> None:
        self.bases, self._last = dict(bases), last
        self._first = first = next(iter(self.bases))
        self.offset: dict[str, int] = {}
        depth = 0
        for name, base in self.bases.items():
            self.offset[name] = depth
            depth += base.depth
        same = not any_vocabulary and _same_vocabulary(self.bases)
        _check_dtypes(self.bases)
        shown = {name or "the base": base.anatomy for name, base in self.bases.items()}
        config = combine(shown, sizes=same)
        self._before, self._after = outer_parts(bases[first].anatomy)
        if not same:
            self._after -= head_of(bases[first].anatomy)
            _check_shapes(self._after, bases[first], bases[last])
        if first != last:
            check_tied(bases[first].anatomy, sorted(self._after))
        opened = [base.source for base in self.bases.values()]
        complete = all(source.tensors for source in opened)

        def check() -> None:
            for source in opened:
                source.check()

        super().__init__(
            Source(
                kind="stack",
                name=" + ".join(dict.fromkeys(source.name for source in opened)),
                config=config,
                identity=f"stack:{[*(s.identity for s in opened), list(bases).index(last)]}",
                tensors=self._merged({k: b.source.tensors for k, b in bases.items()})
                if complete
                else {},
                licence=opened[0].licence if len({s.licence for s in opened}) == 1 else None,
                note="; ".join(
                    [f"{s.name} is {s.note}" for s in opened if s.note]
                    + [f"embeddings and head of {opened[0].name}, for its vocabulary"] * (not same)
                ),
                home=opened[0].home,
                check=check,
                get_tokenizer=self.bases[first].source.tokenizer_folder,
            )
        )

    def local_files(self) -> Iterable[Path]:
        """The files of all bases."""
        return [file for base in self.bases.values() for file in base.local_files()]

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """Each base's name in recipes, and its first layer. Different bases of one name, such as
        two folders called “final”, get a number: a recipe means one base by one name."""
        names: dict[str, str] = {}  # {name: the identity of its base}
        parts = []
        for key, base in self.bases.items():
            name, number = base.recipe_name, 1
            while names.setdefault(name, base.source.identity) != base.source.identity:
                number += 1
                name = f"{base.recipe_name}-{number}"
            parts.append((name, self.offset[key]))
        return tuple(parts)

    @lazy_property
    def anatomy(self) -> Anatomy:
        """The layers of all bases, on the meta device."""
        return Anatomy.of(self.source.config)

    def load(self, progress: Progress = silent) -> PreTrainedModel:
        """The stack's model over the bases' own parameters."""
        models = {name: base.load(progress) for name, base in self.bases.items()}
        with self._loading.taken(progress):
            if self._model is None:
                if len({model.device for model in models.values()}) > 1:
                    raise Refused("These bases lie on different devices: load them on one.")

                def find(name: str) -> tuple[PreTrainedModel, str]:
                    if where := self.anatomy.layer_of(name):
                        path, layer, rest = where
                        which = self._base_of(layer)
                        return models[which], f"{path}.{layer - self.offset[which]}.{rest}"
                    return models[self._outer(name)], name

                self._model = share(assemble(self.anatomy, models[self._first], find))
            return self._model

    def stored(self, progress: Progress = silent) -> tuple[Path, Mapping[str, Tensor]]:
        """The first base's folder, and the tensors of all bases with the paths of their files."""
        opened = {name: base.stored(progress) for name, base in self.bases.items()}
        tensors = {
            which: {name: replace(t, file=str(folder / t.file)) for name, t in tensors.items()}
            for which, (folder, tensors) in opened.items()
        }
        return opened[self._first][0], self._merged(tensors)

    def _base_of(self, layer: int) -> str:
        return next(name for name in reversed(self.offset) if self.offset[name] <= layer)

    def _outer(self, name: str) -> str:
        """Which base a parameter outside the layers comes from."""
        return self._last if name in self._after else self._first

    def _merged(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Stored tensors under the names that they have in the stack."""
        merged: dict[str, Tensor] = {}
        for which, stored in tensors.items():
            base = self.bases[which]
            translate = loader_names(base.anatomy)
            for name, where in disk_layers(base.anatomy, stored).items():
                if where is None:
                    if self._outer(translate(name)) == which:
                        merged[name] = stored[name]
                elif where[1] < base.depth:
                    head, layer, rest = where
                    merged[f"{head}{self.offset[which] + layer}{rest}"] = stored[name]
        return merged


def _check_shapes(names: Iterable[str], one: Base, other: Base) -> None:
    """Raise `Refused` if a parameter after the layers depends on the size of the vocabulary."""
    ours, theirs = (
        dict(base.anatomy.model.named_parameters(remove_duplicate=False)) for base in (one, other)
    )
    for name in sorted(names):
        if name not in theirs or ours[name].shape != theirs[name].shape:
            raise Refused(
                f"{one.name} and {other.name} have vocabularies of different sizes, and {name} "
                "depends on it: begin and end with the same base."
            )


def _check_dtypes(bases: Mapping[str, Base]) -> None:
    """Raise `Refused` if the bases compute in different dtypes, since layers of one could not take
    the output of another's."""
    one, *others = bases.values()
    for other in others:
        if other.torch_dtype != one.torch_dtype:
            raise Refused(
                f"{one.name} is {one.dtype} and {other.name} is {other.dtype}. Save one of them "
                "in the other's dtype first, and stack that."
            )


def _same_vocabulary(bases: Mapping[str, Base]) -> bool:
    """Whether all bases have the same tokens and as many embeddings.

    Raises `Refused` if a token of two of them has different ids, or an id different tokens; or if
    they have different numbers of embeddings, and a tokenizer that would say what these are for is
    missing.
    """
    one, *others = bases.values()
    same = True
    for other in others:
        sizes_agree = one.known_tokens == other.known_tokens
        if not (one.has_tokenizer and other.has_tokenizer):
            if not sizes_agree:
                raise Refused(
                    f"{one.name} has {one.known_tokens:,} embeddings and {other.name} has "
                    f"{other.known_tokens:,}. Without both tokenizers it can't be known whether "
                    "their tokens are the same."
                )
            continue
        ours, theirs = one.tokenizer.get_vocab(), other.tokenizer.get_vocab()
        hint = " If they differ in added tokens alone, --union-vocabulary stacks them."
        check_agree(one.name, ours, other.name, theirs, hint)
        same &= sizes_agree and ours == theirs
    return same


def check_agree(
    one: str, ours: Mapping[str, int], other: str, theirs: Mapping[str, int], hint: str = ""
) -> None:
    """Raise `Refused` if a token of two vocabularies, {token: id}, has different ids, or an id
    different tokens. `one` and `other` name the bases."""
    if odd := _conflicts(ours, theirs):
        shown = "; ".join(
            f"“{word[:40]}” is token {ours.get(word)} in one and {theirs.get(word)} in the other"
            for word in odd[:_SHOWN]
        )
        raise Refused(
            f"{one} and {other} have different vocabularies: {len(odd):,} of their tokens don't "
            f"agree ({shown}).{hint}"
        )


def _conflicts(ours: Mapping[str, int], theirs: Mapping[str, int]) -> list[str]:
    """Tokens whose id is another one, or another token's, in the other vocabulary; by id."""
    of_id = [{i: word for word, i in words.items()} for words in (ours, theirs)]
    odd = {word for word in ours.keys() & theirs.keys() if ours[word] != theirs[word]}
    for i in of_id[0].keys() & of_id[1].keys():
        if of_id[0][i] != of_id[1][i]:
            odd |= {of_id[0][i], of_id[1][i]}
    return sorted(odd, key=lambda word: (ours.get(word, theirs.get(word, 0)), word))
