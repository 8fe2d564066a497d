"""Saved models in an older transformers: `python -m tests.compat` builds an environment for it.

Tiny models of families that transformers 4 knows, each once with a config.json in the spelling of
transformers 4 and once in that of 5, are saved by plans. The older transformers loads the results,
and its logits are compared with the patient's. `--python PATH` takes an environment that is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
OLD = "4.51.3"
TOLERANCE = 1e-4  # in units of the logits' spread

# Run with the older transformers, without this project.
_OTHER_SIDE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
for line in sys.stdin:
    folder = json.loads(line)
    try:
        ids = torch.load(f"{folder}/ids.pt")
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, torch_dtype=torch.float32, output_loading_info=True
        )
        lost = [k for k in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[k]]
        with torch.no_grad():
            logits = model.eval()(input_ids=ids, use_cache=False).logits
        torch.save(logits, f"{folder}/old.pt")
        AutoTokenizer.from_pretrained(folder)
        problem = f"{lost[0]}: {info[lost[0]][:2]}" if lost else ""
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    print("=", json.dumps(problem), flush=True)
"""

_SLIDING, _FULL = "sliding_attention", "full_attention"
_LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
_LONGROPE = dict(type="longrope", short_factor=[1.0 + i / 8 for i in range(8)])
_LONGROPE["long_factor"] = [2.0 + i / 8 for i in range(8)]

# {name: (model type, older keys, a plan)}. Older code derives the layer types of Gemma 2 from the
# position and those of Gemma 3 and Command R7B from a period, so their plans keep to that.
CASES: dict[str, tuple[str, dict, str]] = {
    "llama": ("llama", dict(rope_theta=5e5, rope_scaling=_LLAMA3), "0:2, 4:6, 4"),
    "llama linear": (
        "llama",
        dict(rope_theta=1e5, rope_scaling=dict(type="linear", factor=4.0)),
        "0:4, 2:6",
    ),
    "mistral": ("mistral", dict(rope_theta=1e6), "0:2, 4:6, 4"),
    "mixtral": ("mixtral", dict(rope_theta=1e6), "0:2, 4:6, 4"),
    "qwen2": (
        "qwen2",
        dict(rope_theta=1e6, use_sliding_window=False, max_window_layers=6),
        "0:2, 4:6, 4",
    ),
    "qwen3": ("qwen3", dict(rope_theta=1e6, use_sliding_window=False), "0:2, 4:6, 4"),
    "qwen3_moe": (
        "qwen3_moe",
        dict(rope_theta=1e6, num_experts=4, mlp_only_layers=[1]),
        "0:2, 1, 4:6",
    ),
    "gemma": ("gemma", dict(rope_theta=5e5), "0:2, 4:6, 4"),
    "gemma2": ("gemma2", dict(rope_theta=5e5, sliding_window=8), "0:2, 4:6, 4"),
    "gemma3_text": (
        "gemma3_text",
        dict(
            rope_theta=1e6,
            rope_local_base_freq=5e4,
            rope_scaling=dict(rope_type="linear", factor=8.0),
            sliding_window=8,
            sliding_window_pattern=3,
        ),
        "0:3, 0, 4:6, 3, 1, 2",
    ),
    "gemma3_text, another pattern": (
        "gemma3_text",
        dict(rope_theta=1e6, rope_local_base_freq=5e4, sliding_window=8, sliding_window_pattern=3),
        "0, 2, 3, 5",
    ),
    "cohere2": (
        "cohere2",
        dict(rope_theta=5e5, sliding_window=8, sliding_window_pattern=3),
        "0, 2, 3, 5",
    ),
    "phi": ("phi", dict(rope_theta=5e5, partial_rotary_factor=0.5), "0:2, 4:6, 4"),
    "phi3": (
        "phi3",
        dict(rope_theta=5e5, rope_scaling=_LONGROPE, original_max_position_embeddings=16),
        "0:2, 4:6, 4",
    ),
    "stablelm": ("stablelm", dict(rope_theta=5e5, partial_rotary_factor=0.5), "0:4, 2:6"),
    "glm4": ("glm4", dict(rope_theta=5e5, partial_rotary_factor=0.5), "0:4, 2:6"),
    "gpt_neox": ("gpt_neox", dict(rotary_emb_base=5e5, rotary_pct=0.5), "0:4, 2:6"),
    "olmo2": ("olmo2", dict(rope_theta=5e5), "0:4, 2:6"),
    "granite": ("granite", dict(rope_theta=5e5), "0:4, 2:6"),
    "gpt2": ("gpt2", {}, "0:4, 2:6"),
    "gemma3": (
        "gemma3",
        dict(
            text_config=dict(
                rope_theta=1e6,
                rope_local_base_freq=5e4,
                sliding_window=8,
                sliding_window_pattern=3,
            )
        ),
        "0:3, 0, 4:6",
    ),
}


def main() -> None:
    """Compare, print one line per case, and exit with 1 if any differs."""
    sys.path[:0] = [str(HERE.parent), str(HERE)]
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="only these")
    parser.add_argument("--python", type=Path, help="an interpreter with the older transformers")
    given = parser.parse_args()
    if unknown := set(given.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="compat-") as folder:
        python = given.python or _environment(Path(folder) / "env")
        other = subprocess.Popen(
            [python, "-c", _OTHER_SIDE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        failed = 0
        for name in given.cases or CASES:
            # transformers 5 also writes other tensor names for models with towers.
            for spelling in ("4",) if "text_config" in CASES[name][1] else ("4", "5"):
                message = _case(name, spelling, Path(folder) / f"{name}-{spelling}", other)
                failed += bool(message)
                print(f"{name:32} spelt as in {spelling}: {message or 'the same'}", flush=True)
        other.stdin.close()
        other.wait()
    sys.exit(bool(failed))


def _environment(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    wanted = ("torch", f"transformers=={OLD}", "safetensors")
    subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
    return python


def _case(name: str, spelling: str, folder: Path, other: subprocess.Popen) -> str:
    """The difference; empty if there is none."""
    import tiny
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from zoo import build
    from zoo.examine import _far

    from surgery import Base, Plan

    model_type, older, text = CASES[name]
    fields = build.config(model_type).to_dict()
    levels = [(fields, older)]
    if "text_config" in older:
        levels = [(fields["text_config"], older["text_config"])]
    for level, keys in levels:
        for new in ("rope_parameters", "layer_types"):
            level.pop(new, None)
        level.update(json.loads(json.dumps(keys)), num_hidden_layers=6)
    fields["torch_dtype"] = fields.pop("dtype", None) or "float32"
    config = CONFIG_MAPPING[model_type].from_dict(json.loads(json.dumps(fields)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape) * 0.05)
    model.save_pretrained(folder / "base")
    tiny.tokenizer().save_pretrained(folder / "base")
    if spelling == "4":
        written = json.loads((folder / "base" / "config.json").read_text())
        fields["architectures"] = written["architectures"]
        (folder / "base" / "config.json").write_text(json.dumps(fields))
        path = folder / "base" / "model.safetensors"
        tensors = {
            name.replace("vision_tower.", "vision_tower.vision_model."): tensor
            for name, tensor in load_file(path).items()
        }
        save_file(tensors, path, {"format": "pt"})
    base = Base.open(str(folder / "base"))
    plan = Plan.parse(text, 6)
    ids = build.tokens(48)
    with torch.no_grad():
        logits = base.operate(plan).model(input_ids=ids, use_cache=False).logits
        straight = base.model(input_ids=ids, use_cache=False).logits
    assert _far(logits, straight) > TOLERANCE
    out = base.save(plan, folder / "out")
    read = AutoConfig.from_pretrained(out)
    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(out, config=read).eval()
        if (far := _far(again(input_ids=ids, use_cache=False).logits, logits)) > TOLERANCE:
            return f"this transformers is {far:.0e} off"
    torch.save(ids, out / "ids.pt")
    print(json.dumps(str(out)), file=other.stdin, flush=True)
    message = next((line[2:] for line in other.stdout if line.startswith("= ")), '"it died"')
    if message := json.loads(message):
        return message
    far = _far(torch.load(out / "old.pt"), logits)
    return f"transformers {OLD} is {far:.0e} off" if far > TOLERANCE else ""


if __name__ == "__main__":
    main()
