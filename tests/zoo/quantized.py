"""Quantized checkpoints as each method stores them, saved under plans: the same bytes, and lists
that say what is quantized.

The numbers are made up, since only their names, dtypes and shapes matter to a save; those of fp8
are real, so that transformers can load them. What a saved config says is asked of transformers'
own functions as far as they run without the method's library.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import oracle
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, FineGrainedFP8Config
from transformers.integrations.finegrained_fp8 import replace_with_fp8_linear
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from surgery import Base, Plan, SurgeryError
from surgery.verification.saved import verify_saved

from . import build
from .examine import TOLERANCE, Outcome

# Both drop, repeat or move layers, so that a list renumbered twice or with the other plan differs.
# The second has more than ten layers: “layers.1” is a prefix of “layers.10”.
PLANS = {"shorter": "5, 0:2, 4", "longer": "1, 0, 4:6, 1:3, 4, 0:5"}
# Modules that stay unquantized in every base, besides those outside the layers.
PLAIN_LAYER = 4
PLAIN_MODULE = 1  # its MLP's last projection


@dataclass(frozen=True)
class Format:
    """A method: the config that it writes, and its tensors for a weight (out, in)."""

    name: str
    pack: Callable[[torch.Tensor], dict[str, torch.Tensor]]
    lists: Callable[[str, list[str]], dict]  # from the stack's path and all unquantized modules
    family: str = "llama"

    @property
    def title(self) -> str:
        """Its name and the model's type."""
        return f"{self.name}, {self.family}"


@dataclass
class Saves:
    """The result of each plan of a quantized base."""

    method: str
    family: str
    plans: dict[str, Outcome] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        """The plans with a wrong result."""
        return [name for name, outcome in self.plans.items() if outcome.state == "wrong"]


def examine(title: str) -> Saves:
    """Save every plan from one base, one after the other, and check the files."""
    kind = FORMATS[title]
    result = Saves(kind.name, kind.family)
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        home = Path(folder)
        make(kind, home / "base")
        base = Base.open(str(home / "base"))
        before = base.source.config.to_json_string()
        for name, text in PLANS.items():
            plan, out = Plan.parse(text, base.depth), home / name
            try:
                base.save(plan, out)
                verify_saved(out, str(home / "base"), lambda *_: None, Base.open)
            except SurgeryError as error:
                result.plans[name] = Outcome("refused", str(error))
                continue
            why = _wrong(kind, home / "base", out, plan)
            if base.source.config.to_json_string() != before:
                why = "the base's own config changed"
            result.plans[name] = Outcome("wrong", why) if why else Outcome("exact")
    return result


def make(kind: Format, folder: Path) -> None:
    """A tiny quantized checkpoint with a tokenizer-less config."""
    model = build.model(kind.family)
    model.save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    path, matrices = _stack(model), _matrices(model)
    tensors, plain = {}, ["lm_head"]  # which may be tied, and then isn't stored
    for name, tensor in stored.items():
        owner = name.removesuffix(".weight")
        own = _model_name(owner)
        if own not in matrices or owner == name:
            tensors[name] = tensor
        elif is_plain(own, path):
            tensors[name] = tensor
            plain.append(own)
        else:
            packed = kind.pack(tensor if tensor.dim() > 1 else tensor[None])
            tensors |= {f"{owner}.{leaf}": value for leaf, value in packed.items()}
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = kind.lists(path, sorted(set(plain)))
    (folder / "config.json").write_text(json.dumps(config))


def is_plain(name: str, path: str) -> bool:
    """Does this module of a base stay unquantized? It is known by its place alone."""
    if not name.startswith(path + "."):
        return True
    layer, _, rest = name[len(path) + 1 :].partition(".")
    return int(layer) == PLAIN_LAYER or (
        int(layer) == PLAIN_MODULE and bool(re.search(r"(down_proj|c_proj)$", rest))
    )


def packed_on_disk(folder: Path) -> set[str]:
    """The modules that a folder's tensors show to be quantized, as the model calls them."""
    names = load_file(folder / "model.safetensors")
    beside = r"\.(weight_scale_inv|qweight|weight_packed|SCB|weight\.absmax)$"
    return {_model_name(re.sub(beside, "", name)) for name in names if re.search(beside, name)}


def says(folder: Path) -> set[str]:
    """The modules that a folder's config declares as quantized."""
    config = AutoConfig.from_pretrained(folder)
    quantization = config.quantization_config
    del config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    matrices = _matrices(model)
    method = quantization["quant_method"]
    if method == "fp8":
        settings = FineGrainedFP8Config.from_dict(quantization)
        listed = HfQuantizer.get_modules_to_not_convert(model, settings.modules_to_not_convert)
        replace_with_fp8_linear(model, listed, settings, pre_quantized=True)
        made = {n: type(m).__name__ for n, m in model.named_modules()}
        return {name for name in matrices if made[name].startswith("FP8")}
    if method in ("awq", "bitsandbytes"):
        key = "modules_to_not_convert" if method == "awq" else "llm_int8_skip_modules"
        listed = HfQuantizer.get_modules_to_not_convert(
            model, quantization[key], add_default_skips=method == "awq"
        )
        return {name for name in matrices if should_convert_module(name, listed)}
    if method == "gptq":  # the first pattern that matches counts
        rules = list(quantization["dynamic"])
        first = {n: next((r for r in rules if re.match(r[2:], n)), "+:") for n in matrices}
        return {n for n in matrices if first[n][:2] == "+:" and n.startswith(_stack(model) + ".")}
    ignored = quantization["ignore"]
    return {
        name
        for name in matrices
        if not any(re.match(x[3:], name) if x.startswith("re:") else x == name for x in ignored)
    }


def _wrong(kind: Format, home: Path, out: Path, plan: Plan) -> str:
    """Why a save is wrong; empty if it isn't."""
    old, new = load_file(home / "model.safetensors"), load_file(out / "model.safetensors")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(_plain_config(out))
    path = _stack(model)
    expected = {}
    for name, tensor in old.items():
        if not _model_name(name).startswith(path + "."):
            expected[name] = tensor
            continue
        end = path.rpartition(".")[2]
        head, layer, rest = re.fullmatch(rf"(.*?\b{end}\.)(\d+)(\..*)", name).groups()
        for p, i in enumerate(plan.sources):
            if i == int(layer):
                expected[f"{head}{p}{rest}"] = tensor
    if new.keys() != expected.keys():
        return f"{min(new.keys() ^ expected.keys())} is there and should not be, or the reverse"
    for name, tensor in expected.items():
        if new[name].dtype != tensor.dtype or not torch.equal(_bytes(new[name]), _bytes(tensor)):
            return f"{name} has other bytes than its source"
    if odd := says(out) ^ packed_on_disk(out):
        return f"the config says the wrong thing of {min(odd)} ({len(odd)} in all)"
    return _computes_otherwise(home, out, plan) if kind.name == "fp8" else ""


@torch.no_grad()
def _computes_otherwise(home: Path, out: Path, plan: Plan) -> str:
    """Compare with transformers: it dequantizes both and runs the base's layers in plan order."""
    base, saved = (
        AutoModelForCausalLM.from_pretrained(
            place, dtype=torch.float32, quantization_config=FineGrainedFP8Config(dequantize=True)
        ).eval()
        for place in (home, out)
    )
    ids = build.tokens()
    truth = oracle.of(base, (_stack(base),), ids).logits(plan.sources)
    logits = saved(input_ids=ids, use_cache=False).logits
    far = ((logits - truth).abs().max() / truth.std()).item()
    return "" if far <= TOLERANCE else f"the loaded checkpoint is {far:.1e} from the base's layers"


def _plain_config(folder: Path):
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    return config


def _stack(model: nn.Module) -> str:
    lists = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList)]
    text = [n for n in lists if "vision" not in n]
    return min(text, key=len)


def _matrices(model: nn.Module) -> set[str]:
    """The modules that quantizers replace."""
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) or name.endswith(".experts")
    }


def _model_name(owner: str) -> str:
    """The model's name for a stored module: it keeps a layer's experts in one, and the parts of a
    multimodal one elsewhere."""
    owner = re.sub(r"^language_model\.model\.", "model.language_model.", owner)
    owner = re.sub(r"^vision_tower\.", "model.vision_tower.", owner)
    return re.sub(r"\.experts\.\d+\..*", ".experts", owner)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _ints(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.randint(0, 100, shape, dtype=dtype)


def _fp8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    scale = weight.abs().max() / 448
    return {
        "weight": (weight / scale).to(torch.float8_e4m3fn),
        "weight_scale_inv": scale.reshape(1, 1).clone(),
    }


def _awq(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    out, into = weight.shape
    return {
        "qweight": _ints(into, out // 8),
        "qzeros": _ints(into // 16, out // 8),
        "scales": torch.rand(into // 16, out).half(),
    }


def _gptq(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    out, into = weight.shape
    return {
        "qweight": _ints(into // 8, out),
        "qzeros": _ints(into // 16, out // 8),
        "scales": torch.rand(into // 16, out).half(),
        "g_idx": torch.arange(into, dtype=torch.int32) // 16,
    }


def _compressed(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    out, into = weight.shape
    return {
        "weight_packed": _ints(out, into // 8),
        "weight_scale": torch.rand(out, into // 16).bfloat16(),
        "weight_shape": torch.tensor([out, into]),
    }


def _nf4(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "weight": _ints(weight.numel() // 2, 1, dtype=torch.uint8),
        "weight.absmax": torch.rand(-(-weight.numel() // 64)),
        "weight.quant_map": torch.rand(16),
        "weight.quant_state.bitsandbytes__nf4": _ints(90, dtype=torch.uint8),
    }


def _int8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "weight": _ints(*weight.shape, dtype=torch.int8),
        "SCB": torch.rand(weight.shape[0]),
        "weight_format": torch.tensor(0, dtype=torch.uint8),
    }


def _skip(key: str, **settings) -> Callable[[str, list[str]], dict]:
    """One layer by its name alone, single modules by theirs."""

    def lists(path: str, plain: list[str]) -> dict:
        whole = f"{path}.{PLAIN_LAYER}"
        single = [name for name in plain if not name.startswith(whole + ".")]
        return settings | {key: [whole, *single]}

    return lists


def _dynamic(path: str, plain: list[str]) -> dict:
    single = [name for name in plain if f".{PLAIN_MODULE}." in name]
    rules = [rf"-:.*\.{PLAIN_LAYER}\..*", *("-:" + re.escape(name) for name in single)]
    return dict(quant_method="gptq", bits=4, group_size=16, dynamic={rule: {} for rule in rules})


def _groups(path: str, plain: list[str]) -> dict:
    end = path.rpartition(".")[2]
    return dict(
        quant_method="compressed-tensors",
        format="pack-quantized",
        quantization_status="compressed",
        config_groups={
            "group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int"}}
        },
        ignore=[
            *(name for name in plain if f".{PLAIN_LAYER}." not in name),
            rf"re:.*{end}[.]{PLAIN_LAYER}[.].*",
        ],
    )


_BNB4 = dict(quant_method="bitsandbytes", load_in_4bit=True, bnb_4bit_quant_type="nf4")
_FORMATS = [
    Format("fp8", _fp8, _skip("modules_to_not_convert", quant_method="fp8")),
    Format("fp8", _fp8, _skip("modules_to_not_convert", quant_method="fp8"), "qwen3_moe"),
    Format("awq", _awq, _skip("modules_to_not_convert", quant_method="awq", bits=4)),
    Format("gptq", _gptq, _dynamic),
    Format("compressed-tensors", _compressed, _groups),
    Format("compressed-tensors", _compressed, _groups, "qwen2"),
    Format("compressed-tensors", _compressed, _groups, "qwen3_5"),
    Format("bitsandbytes, 4 bits", _nf4, _skip("llm_int8_skip_modules", **_BNB4)),
    Format("bitsandbytes, 4 bits", _nf4, _skip("llm_int8_skip_modules", **_BNB4), "gemma3"),
    Format("bitsandbytes, 4 bits", _nf4, _skip("llm_int8_skip_modules", **_BNB4), "gpt2"),
    Format(
        "bitsandbytes, 8 bits",
        _int8,
        _skip("llm_int8_skip_modules", quant_method="bitsandbytes", load_in_8bit=True),
    ),
]
FORMATS = {kind.title: kind for kind in _FORMATS}
