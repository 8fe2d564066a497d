"""Write configs so that older transformers versions read them too.

transformers 5 writes `rope_parameters` and `dtype`. transformers 4 and several runtimes read
`rope_theta`, `rope_scaling` and `torch_dtype`, and silently use defaults where those are missing.
An older key is added only if transformers reads the same config with and without it, and if the
older keys alone have the same meaning as the new ones.
"""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig

from .rewrite import text_key

_ROPE = re.compile(r"(^|_)(rope|rotary)_")
_NEW = "rope_parameters"
_FULL, _SLIDING = "full_attention", "sliding_attention"


def with_older_tokenizer_class(content: bytes) -> bytes:
    """Return `content`, a tokenizer_config.json, with the older name of transformers 5's
    `TokenizersBackend`. transformers 5 reads both names as the same class; transformers 4 fails on
    the new one."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return content
    if not isinstance(fields, dict) or fields.get("tokenizer_class") != "TokenizersBackend":
        return content
    fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode(
        "utf-8", "surrogatepass"
    )


def with_older_spellings(
    fields: Mapping[str, Any], base_fields: Mapping[str, Any], kind: type[PreTrainedConfig]
) -> dict[str, Any]:
    """Return `fields`, the content of config.json, with older keys added. `base_fields` is the
    base's own config.json, whose keys are tried first; `kind` is the config class."""
    out = copy.deepcopy(dict(fields))
    if (config := _config(kind, out)) is None:
        return out
    levels = _levels(config, fields)
    for path, _ in levels:
        _say_rules(kind, out, path)
    if (config := _config(kind, out)) is None:
        return out
    expected = config.to_dict()

    def add(path: tuple[str, ...], keys: Mapping[str, Any]) -> None:
        level = _at(out, path)
        keys = {key: value for key, value in keys.items() if key not in level}
        level.update(copy.deepcopy(keys))
        if not _says(kind, out, path, expected):
            for key in keys:
                del level[key]

    for path, inner in levels:
        level, own = _at(out, path), _at(base_fields, path) or {}
        if level.get("dtype"):
            add(path, {"torch_dtype": level["dtype"]})
        add(path, _aliases(inner, level, own))
        for keys in _rope(level, own):
            if _says(kind, _instead(out, path, _NEW, keys), path, expected):
                add(path, keys)
                break
    return out


def _rope(level: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Candidate older keys for a level's rotary parameters: the base's own first, then those of
    model families."""
    new = level.get(_NEW)
    if not isinstance(new, dict) or not new:
        return
    if kept := {key: own[key] for key in own if _ROPE.search(key) and key not in level}:
        yield kept | ({} if kept.keys() - {"partial_rotary_factor"} else _plain(new, level))
    if isinstance(full := new.get(_FULL), dict) and isinstance(local := new.get(_SLIDING), dict):
        theta, other = full.get("rope_theta"), local.get("rope_theta")
        yield _plain(full, level) | {"rope_local_base_freq": other}  # Gemma 3
        yield {"global_rope_theta": theta, "local_rope_theta": other}  # ModernBERT
        yield _plain(full, level)
    elif "rope_theta" in new:
        yield _plain(new, level)
        plain = _plain(new, level)
        yield {  # GPT-NeoX
            "rotary_emb_base": plain["rope_theta"],
            "rotary_pct": plain.get("partial_rotary_factor", 1.0),
            "rope_scaling": plain["rope_scaling"],
        }


def _plain(rope: Mapping[str, Any], level: Mapping[str, Any]) -> dict[str, Any]:
    """One set of rotary parameters in the keys of Llama's older configs."""
    scaling = dict(rope)
    out = {"rope_theta": scaling.pop("rope_theta", None)}
    if (part := scaling.pop("partial_rotary_factor", None)) is not None:
        out["partial_rotary_factor"] = part
    if scaling.get("rope_type") == "longrope":  # Phi-3 accepts no other keys
        scaling["type"] = scaling.pop("rope_type")
        if "original_max_position_embeddings" in level:
            scaling.pop("original_max_position_embeddings", None)
    plain = scaling.get("rope_type") == "default" and len(scaling) == 1
    return out | {"rope_scaling": None if plain or not scaling else scaling}


def _aliases(
    config: PreTrainedConfig, level: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """Older names of keys from the class's `attribute_map`, as far as the base's file has them
    (numbers of experts always, since readers need them), and keys that are now in the text
    config."""
    key = text_key(config)
    part = level[key] if key else {}
    names = config.attribute_map
    out = {}
    for key in own.keys() | {name for name in names if "experts" in name}:
        if key in level:
            continue
        if names.get(key) in level:
            out[key] = level[names[key]]
        elif key in own and key in part and not isinstance(own[key], dict):
            out[key] = part[key]
        elif _ROPE.search(key) and _NEW in part and _NEW not in level:
            out[key] = own[key]
    return out


def _say_rules(kind: type[PreTrainedConfig], out: dict[str, Any], path: tuple[str, ...]) -> None:
    """If the class has a rule for which layers use a sliding window, make it agree with
    `layer_types` (older readers know only the rule), or remove it if no rule does."""
    level = _at(out, path)
    if not level.get("layer_types"):
        return
    if isinstance(level.get("sliding_window_pattern"), int):
        del level["sliding_window_pattern"]
    for rule in _rules(level):
        config = _config(kind, _instead(out, path, "layer_types", rule))
        for key in path:
            config = getattr(config, key, None)
        if getattr(config, "layer_types", None) == level["layer_types"]:
            level.update(rule)


def _rules(level: Mapping[str, Any]) -> Iterator[dict[str, int]]:
    """Rules for sliding-window layers that agree with `layer_types`."""
    kinds = level["layer_types"]
    if not set(kinds) <= {_FULL, _SLIDING}:
        return
    full = [kind == _FULL for kind in kinds]
    for n in range(1, len(full) + 2):
        if [(i + 1) % n == 0 for i in range(len(full))] == full:
            yield {"sliding_window_pattern": n}
            break
    if full == sorted(full, reverse=True):
        yield {"max_window_layers": sum(full)}


def _levels(
    config: PreTrainedConfig, fields: Mapping[str, Any]
) -> list[tuple[tuple[str, ...], PreTrainedConfig]]:
    """(path, config) of the config in `fields` and of all nested ones."""
    result: list[tuple[tuple[str, ...], PreTrainedConfig]] = [((), config)]
    for path, outer in result:
        for key in outer.sub_configs:
            inner = getattr(outer, key, None)
            if isinstance(inner, PreTrainedConfig) and isinstance(_at(fields, (*path, key)), dict):
                result.append(((*path, key), inner))
    return result


def _at(fields: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        fields = fields.get(key) if isinstance(fields, dict) else None
    return fields


def _instead(
    fields: Mapping[str, Any], path: tuple[str, ...], new: str, keys: Mapping[str, Any]
) -> dict[str, Any]:
    """Copy the fields and replace a new key with older ones."""
    out = copy.deepcopy(dict(fields))
    level = _at(out, path)
    del level[new]
    level.update(copy.deepcopy(dict(keys)))
    return out


def _config(kind: type[PreTrainedConfig], fields: Mapping[str, Any]) -> PreTrainedConfig | None:
    """The config that transformers reads from these fields; None if it rejects them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecation of older keys
            return kind.from_dict(kind._decode_special_floats(copy.deepcopy(dict(fields))))
    except Exception:  # validators raise many kinds of errors
        return None


def _says(
    kind: type[PreTrainedConfig],
    fields: Mapping[str, Any],
    path: tuple[str, ...],
    expected: Mapping[str, Any],
) -> bool:
    """Does transformers read the expected config from these fields? Extra keys at `path` are
    allowed, since a config keeps keys that its class doesn't know."""
    if (config := _config(kind, fields)) is None:
        return False
    got = config.to_dict()
    level = _at(got, path) or {}
    for key in level.keys() - _at(expected, path).keys():
        del level[key]
    return _same(got, expected)


def _same(one: Any, other: Any) -> bool:
    """Are both equal? `type` is an older name of `rope_type`."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [x.keys() - ({"type"} if "rope_type" in x else set()) for x in (one, other)]
        return keys[0] == keys[1] and all(_same(one[key], other[key]) for key in keys[0])
    return type(one) is type(other) and one == other
