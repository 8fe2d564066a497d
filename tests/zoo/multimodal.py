"""Every multimodal model in transformers, tiny and random, with text and with an image or a sound.

The same three ways to come out as in `examine`: exact, refused or wrong.
"""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import oracle
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from surgery import Base, Plan, Refused
from surgery.architecture import Anatomy

from . import build, examine
from .examine import ROUNDING, TOLERANCE, Finding, Outcome
from .images import Inputs, image_inputs
from .sizes import DEPTH
from .special import SPECIAL
from .special_multimodal import FIELDS

TYPES = tuple(
    {**MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, **MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES}
)
PLANS = {name: examine.PLANS[name] for name in ("drop", "repeat", "swap", "drop first")}
_STEPS = 4  # tokens that the cache is asked for


@dataclass
class MultimodalFinding(Finding):
    """`given` is what the model was run on: text, an image, a sound."""

    given: str = ""


@dataclass
class _Case:
    """One kind of input: what the oracle says of it, and how exact the base's own cache is."""

    name: str
    inputs: Inputs
    truth: oracle.Oracle | oracle.Reordered | None
    no_truth: str
    limit: float | None


def auto_class(model_type: str):
    """The Auto class that publishers of this type name."""
    known = model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return AutoModelForImageTextToText if known else AutoModelForMultimodalLM


def class_name(model_type: str) -> str:
    """The class that transformers has for the type."""
    known = {
        **MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
        **MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    }
    return known[model_type]


def config(model_type: str) -> PreTrainedConfig:
    """The tiny config of a type, towers included."""
    return build.config(model_type, FIELDS.get(model_type, SPECIAL.get(model_type, {})))


def model(model_type: str) -> PreTrainedModel:
    """A random model of it."""
    return build.drawn_model(config(model_type), auto_class(model_type))


def examine_multimodal(model_type: str, plans: Mapping[str, str] = PLANS) -> MultimodalFinding:
    """Build a tiny model of a type, save it, and operate on what was saved."""
    result = MultimodalFinding(model_type)
    default = CONFIG_MAPPING[model_type]()
    if getattr(default, "is_encoder_decoder", False):
        try:
            Anatomy.of(default)
            outcome = Outcome("wrong", "an encoder-decoder that isn't refused")
        except Refused as error:
            outcome = Outcome("refused", examine._said(error))
        result.plans = dict.fromkeys(plans, outcome)
        return result
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        home = Path(folder)
        try:
            made = model(model_type)
        except Exception as error:
            result.broken = examine._said(error)
            return result
        result.cls = type(made).__name__
        given: dict[str, Inputs] = {}
        try:
            text = {"input_ids": build.tokens()}
            with torch.no_grad():
                made(**text, use_cache=False)
            given["text"] = text
        except Exception as error:
            result.broken = examine._said(error)
        if (image := image_inputs(made)) is not None:
            given["image" if any("pixel" in name for name in image) else "sound"] = image
        try:
            made.save_pretrained(home / "base")
            base = Base.open(str(home / "base"))
            if given:
                result.broken = ""
            base.load()
            result.stack = ", ".join(base.anatomy.stack.paths)
        except Refused as error:
            result.plans = {name: Outcome("refused", examine._said(error)) for name in plans}
            result.broken = ""
            return result
        except Exception as error:
            result.broken = examine._said(error)
        if not result.broken:
            result.given = ", ".join(given)
            _examine_base(base, type(made), home, plans, given, result)
        del made
    gc.collect()
    return result


def _examine_base(base, cls, home, plans, given, result) -> None:
    cases = [_case(base, name, inputs, result) for name, inputs in given.items()]
    for name, text in plans.items():
        out, plan = home / name.replace(" ", "-"), Plan.parse(text, DEPTH)
        try:
            patient = base.operate(plan).model
        except Refused as error:
            result.plans[name] = examine._refused(base, plan, out, error)
            continue
        except Exception as error:
            result.plans[name] = Outcome("wrong", examine._said(error))
            continue
        try:
            result.plans[name] = _compared(base, cls, plan, patient, cases, out)
        except Exception as error:
            result.plans[name] = Outcome("wrong", examine._said(error))


def _case(base: Base, name: str, inputs: Inputs, result: Finding) -> _Case:
    ids = inputs["input_ids"]
    others = {key: value for key, value in inputs.items() if key != "input_ids"}
    truth, no_truth = None, ""
    try:
        truth = oracle.of(base.model, base.anatomy.stack.paths, ids, **others)
    except oracle.NoOracle as error:
        no_truth = str(error)
        result.notes.append(f"no oracle for {name}: {error}")
    own = _full_and_cached(base.model, inputs)
    limit = None
    if own is None:
        result.notes.append(f"no cache to compare for {name}: the unmodified model has none")
    elif (far := examine._far(*own)) > ROUNDING:
        result.notes.append(
            f"no cache to compare for {name}: the unmodified model's is {far:.0e} off"
        )
    else:
        limit = max(TOLERANCE, 10 * far)
    return _Case(name, inputs, truth, no_truth, limit)


@torch.no_grad()
def _compared(base, cls, plan, patient, cases, out) -> Outcome:
    base.save(plan, out)
    auto = auto_class(base.model.config.model_type)
    again, info = auto.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    again.eval()
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[key]:
            return Outcome("wrong", f"the checkpoint reloads with {key}: {min(info[key])}")
    if type(again) is not cls or not isinstance(patient, cls):
        return Outcome("wrong", f"a {cls.__name__} became a {type(again).__name__}")
    if json.loads((out / "config.json").read_text())["architectures"] != [cls.__name__]:
        return Outcome("wrong", "the config names another architecture")
    if changed := _changed_outside(base, again):
        return Outcome("wrong", f"{changed}, outside the layers, has other values")
    for case in cases:
        if (outcome := _one_case(base, plan, patient, again, case)) is not None:
            return outcome
    if "text" in {case.name for case in cases}:
        return examine._previewed(base, plan, again, build.tokens())
    message = base.preview(plan)
    have = sum(p.numel() for p in again.parameters())
    if message.parameters != have:
        return Outcome("wrong", f"preview says {message.parameters} parameters, it has {have}")
    return Outcome("exact")


def _one_case(base, plan, patient, again, case: _Case) -> Outcome | None:
    """What is wrong with a kind of input; None if nothing is."""
    logits = patient(**case.inputs, use_cache=False).logits
    if list(plan.sources) == list(range(base.depth)):
        expected = base.model(**case.inputs, use_cache=False).logits
    elif case.truth is None:
        return Outcome("wrong", f"{case.name}: neither shown nor refused: {case.no_truth}")
    else:
        try:
            expected = case.truth.logits(plan.sources)
        except oracle.NoOracle as error:
            return Outcome("wrong", f"{case.name}: neither shown nor refused: {error}")
    if not torch.isfinite(logits).all():
        return Outcome("wrong", f"{case.name}: the logits are not finite")
    if (far := examine._far(logits, expected)) > TOLERANCE:
        return Outcome("wrong", f"{case.name}: the patient is {far:.1e} from what it should give")
    if (far := examine._far(again(**case.inputs, use_cache=False).logits, logits)) > TOLERANCE:
        return Outcome(
            "wrong", f"{case.name}: the reloaded checkpoint is {far:.1e} off the patient"
        )
    both = [_full_and_cached(one, case.inputs) for one in (patient, again)]
    if (both[0] is None) != (both[1] is None):
        return Outcome("wrong", f"{case.name}: only one of patient and checkpoint has a cache")
    if case.limit is not None and (
        None in both or max(examine._far(*x) for x in both) > case.limit
    ):
        return Outcome("wrong", f"{case.name}: cached text differs from the full pass")
    if None not in both and examine._far(both[0][1], both[1][1]) > (case.limit or TOLERANCE):
        return Outcome("wrong", f"{case.name}: patient and checkpoint differ in their cached text")
    return None


def _changed_outside(base: Base, again: PreTrainedModel) -> str | None:
    """The first tensor outside the layers (a tower's, say) that a plan has changed."""
    before = base.model.state_dict()
    for name, tensor in again.state_dict().items():
        if base.anatomy.layer_of(name) or name in base.anatomy.tables:
            continue
        if name not in before or not torch.equal(before[name], tensor):
            return name
    return None


@torch.no_grad()
def _full_and_cached(model: PreTrainedModel, inputs: Inputs):
    """Logits of the last tokens in one pass, and token by token behind a pass over the others; None
    if the model has no cache to go on with. Of one text."""
    length = inputs["input_ids"].shape[1]
    begin = length - _STEPS
    by_token = {k: v[:1] for k, v in inputs.items() if v.dim() > 1 and v.shape[1] == length}
    others = {k: v for k, v in inputs.items() if k not in by_token}
    full = model(**by_token, **others, use_cache=False).logits[:, -_STEPS - 1 :]
    try:
        out = model(**{k: v[:, :begin] for k, v in by_token.items()}, **others, use_cache=True)
        steps = [out.logits[:, -1:]]
        for k in range(begin, length):
            cache = examine._cache_of(out)
            one = {name: v[:, k : k + 1] for name, v in by_token.items()}
            out = model(**one, use_cache=True, **cache)
            steps.append(out.logits)
        return full, torch.cat(steps, dim=1)
    except Exception:
        return None
