"""Apply a plan to a quantization config: renumber the modules it names, by name or by pattern.

Tools match such entries differently: as full names, prefixes, substrings, regular expressions or
globs. So each renumbered entry is tested with all of these. At each position of the plan it must
select what the original entry selected in the source layer.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from transformers.quantizers.quantizers_utils import should_convert_module

from surgery.errors import Refused

# {module name: (prefix, layer number, suffix), or None outside the layers}
Modules = Mapping[str, tuple[str, int, str] | None]
_Reading = Callable[[str], bool]

# Files beside config.json that also describe the quantization.
SIDE_FILES = (
    "quantize_config.json",
    "quant_config.json",
    "quantization_config.json",
    "hf_quant_config.json",
)
# Lists that transformers reads with `should_convert_module`.
_SKIP_LISTS = {
    "modules_to_not_convert",
    "llm_int8_skip_modules",
    "ignored_layers",
    "linear_weights_not_to_quantize",
    "skip_modules",
}
# Globs, as in Quark and ModelOpt.
_GLOBS = {"exclude", "exclude_modules", "ignore", "layer_quant_config", "quantized_layers"}
# Regular expressions that are searched anywhere in a name, as in Gemma.
_SEARCHED = {"module_quant_configs"}
# A single name, or a comma-separated list of names.
_TEXTS = _SKIP_LISTS | _GLOBS | {"targets", "block_name_to_quantize", "modules_to_convert"}
# Fields that do not name modules.
_OTHER = {"dataset", "meta", "tokenizer", "model_name_or_path", "model_file_base_name"}
_LITERAL = re.compile(r"[\w.-]+")
_MOST_NAMES = 5000  # limit for replacing one pattern with names


def renumber(quantization: Mapping[str, Any], modules: Modules, sources: Sequence[int]) -> dict:
    """Return the quantization config for the plan's model; the input is not modified. Raises
    `Refused` if a name or pattern has no equivalent for the plan."""
    return _Renumbering(modules, sources).of_dict(quantization, "")


class _Renumbering:
    """The renumbering of a base's quantization config for a plan."""

    def __init__(self, modules: Modules, sources: Sequence[int]) -> None:
        at: dict[int, list[int]] = {}
        for position, layer in enumerate(sources):
            at.setdefault(layer, []).append(position)
        self._at, self._modules = at, modules
        self._heads = {where[0] for where in modules.values() if where}
        # A number after the name of the stack; the dot may be escaped, as in a pattern.
        ends = "|".join(
            sorted({re.escape(head.rstrip(".").split(".")[-1]) for head in self._heads})
        )
        self._number = re.compile(rf"(?<!\w)({ends})(\\?\.|\[\.\])(\d+)(?!\d)") if ends else None
        self._source: dict[str, str] = {}  # of each module of the plan's model
        for name, where in modules.items():
            if where is None:
                self._source[name] = name
                continue
            head, layer, rest = where
            self._source.update((f"{head}{p}{rest}", name) for p in at.get(layer, ()))

    def of_dict(self, value: Mapping[str, Any], field: str) -> dict:
        """Renumber the keys and values of a dict; `field` is the key of the dict itself."""
        new: dict[str, Any] = {}
        for key, inner in value.items():
            for name in self.of_name(key, field) if isinstance(key, str) else [key]:
                if name in new:
                    raise Refused(f"The quantization config would contain “{name[:80]}” twice.")
                new[name] = self.of_value(inner, key)
        return new

    def of_value(self, value: Any, field: str) -> Any:
        """Renumber a value under the key `field`, or in a list there."""
        if field in _OTHER:
            return copy.deepcopy(value)
        if isinstance(value, Mapping):
            return self.of_dict(value, field)
        if isinstance(value, (list, tuple)):
            new: list[Any] = []
            for item in value:
                if isinstance(item, str):
                    new += self.of_name(item, field, listed=True)
                elif (inner := self.of_value(item, field)) or not item:
                    new.append(inner)  # drop lists that have become empty
            return new
        if isinstance(value, str) and field in _TEXTS:
            if _LITERAL.fullmatch(value.replace(",", "")) and "," in value:
                return ",".join(self.of_value([part.strip() for part in value.split(",")], field))
            names = self.of_name(value, field)
            if len(names) != 1:
                raise _refusal(value)
            return names[0]
        return copy.deepcopy(value)

    def of_name(self, text: str, field: str, listed: bool = False) -> list[str]:
        """Renumber a name or pattern. In a list, a pattern may become the names it selects."""
        literal = bool(_LITERAL.fullmatch(text))
        if literal and not re.search(r"\d", text):
            return [text]
        moved = self._moved(text)
        head = next((h for h in self._heads if literal and text.startswith(h)), None)
        if moved is not None and head and re.match(r"\d+\.\w", text[len(head) :]):
            return moved  # the number is delimited on both sides, so all tools agree
        wanted, required = self._selected(text, field, literal)
        for names in (moved, [text], *self._moved_elsewhere(text)):
            if names is not None and self._reads_alike(names, required):
                return names
        if not listed or wanted is None:
            raise _refusal(text)
        where = (w for w in self._modules.values() if w and text == f"{w[0]}{w[1]}")
        if parts := dict.fromkeys(rest.split(".")[1] for _, _, rest in where):
            # A whole layer: list its children, since “layers.1” is also a prefix of “layers.10”.
            return [f"{name}.{part}" for name in moved or () for part in parts]
        exact = text.startswith("re:")  # tools with such patterns compare full names
        if len(wanted) <= _MOST_NAMES and (exact or not self._are_parts(wanted)):
            return sorted(wanted, key=_in_order)
        raise _refusal(text)

    def _are_parts(self, names: set[str]) -> bool:
        """Is one of these names a prefix of another module's name?"""
        lengths = {len(name) for name in names}
        for name in self._source.keys() - names:
            starts = [0, *(name.find(head) for head in self._heads if head in name)]
            if any(name[at : at + size] in names for at in starts for size in lengths):
                return True
        return False

    def _moved(self, text: str) -> list[str] | None:
        """The text with its layer number replaced, once per position; None if it has no layer
        number."""
        for m in self._number.finditer(text) if self._number else ():
            before = text[: m.start()].replace("\\.", ".").replace("[.]", ".")
            prefix = "." + re.findall(r"[\w.]*$", before)[0].lstrip(".") + m[1]
            heads = ["." + head.rstrip(".") for head in self._heads]
            if any(head.endswith(prefix) or prefix.endswith(head) for head in heads):
                return self._placed(text, *m.span(3))
        return None

    def _moved_elsewhere(self, text: str) -> Iterator[list[str]]:
        """The same for any other number that may be a layer, as in `.*[.]3[.]mlp.*`."""
        for m in re.finditer(r"\d+", text):
            yield self._placed(text, *m.span())

    def _placed(self, text: str, start: int, end: int) -> list[str]:
        places = self._at.get(int(text[start:end]), ())
        return [f"{text[:start]}{p}{text[end:]}" for p in places]

    def _selected(
        self, text: str, field: str, literal: bool
    ) -> tuple[set[str] | None, dict[str, set[str]]]:
        """Return the modules of the plan's model that the text must select, in total and by
        interpretation.

        The interpretation of the field's own tool counts, and all others that agree with it on the
        base: one that takes `layers.10` for a match of `layers.1` misreads the base. If the tool's
        own interpretation selects nothing, all of them count, and the total is None, since no list
        of modules is then equivalent.
        """
        readings = _readings(text)
        base = {kind: frozenset(filter(reads, self._modules)) for kind, reads in readings.items()}
        first: Sequence[str] = ("name",) if literal else ()
        if field in _SKIP_LISTS:
            first = ("skip", *first)
        elif text.startswith(("re:", "+:", "-:")) or field == "dynamic":
            first = ("match",)
        elif field in _GLOBS and not literal:
            first = ("glob",)
        elif field in _SEARCHED:
            first = ("search",)
        first = [kind for kind in first if kind in base]
        truth = next((base[kind] for kind in first if base[kind]), None)
        if truth is not None:
            always = {first[0], "fullmatch"} if text.startswith("re:") else {first[0]}
            base = {k: names for k, names in base.items() if names == truth or k in always}
        required = {
            kind: {new for new, old in self._source.items() if old in names}
            for kind, names in base.items()
        }
        certain = truth is not None and truth == base[first[0]]
        return required[first[0]] if certain else None, required

    def _reads_alike(self, names: Collection[str], required: Mapping[str, set[str]]) -> bool:
        selected: dict[str, set[str]] = {kind: set() for kind in required}
        for text in names:
            readings = _readings(text)
            if not required.keys() <= readings.keys():
                return False  # no longer a valid regular expression, such as “[1-0]”
            for kind in required:
                selected[kind].update(filter(readings[kind], self._source))
        return selected == required


def _readings(text: str) -> dict[str, _Reading]:
    """{interpretation: predicate on full module names} of an entry, one for each kind of tool."""
    if text.startswith(("re:", "+:", "-:")):
        return dict(_expressions(text[3:] if text.startswith("re:") else text[2:]))
    result: dict[str, _Reading] = {
        "name": lambda name: f".{text}." in f".{name}.",
        "part": lambda name: text in name,
        "glob": lambda name: fnmatchcase(name, text),
    }
    expressions = dict(_expressions(text))
    if expressions:
        result["skip"] = lambda name: not should_convert_module(name, [text])
    return result | expressions


def _expressions(text: str) -> Iterator[tuple[str, _Reading]]:
    try:
        compiled = re.compile(text)
    except re.error:
        return
    yield "match", lambda name: bool(compiled.match(name))
    yield "fullmatch", lambda name: bool(compiled.fullmatch(name))
    yield "search", lambda name: bool(compiled.search(name))


def _in_order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _refusal(text: str) -> Refused:
    return Refused(
        f"The quantization config refers to layers by “{text[:80]}”, which can't be renumbered for "
        "this plan. List the modules by name in the base's quantization config."
    )
