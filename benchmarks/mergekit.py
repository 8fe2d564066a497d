"""The same recipe here and in mergekit: are the checkpoints' tensors the same, bit for bit?

Installs mergekit into an environment of its own (some minutes, 6 GB) unless --python names one that
has it. Makes tiny models of families that mergekit gets right, has both write them by the recipe
that `python -m surgery recipe` prints, and compares every tensor. Exits with 1 if one differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import torch
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

# Those with MLP biases are left out: mergekit loses the biases without a word.
FAMILIES = {
    "llama": {},
    "llama, tied": {"tie_word_embeddings": True},
    "mistral": {},
    "gpt2": {},
}
PLANS = (
    "0:2, 4:6",
    "0:4, 2:6",
    "0, 3, 2, 1, 4:6",
    "0:3, 2@identity, 3:6",
    "0:3, 2@scale=0.5, 3:6",
)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor in a folder's safetensors."""
    result = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            result |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return result


def install(folder: Path) -> Path:
    """An environment with mergekit; its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "mergekit>=0.1.3,<0.2"], check=True)
    return python


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> str:
    """What differs, in words; empty if nothing does."""
    if ours.keys() != theirs.keys():
        return f"names: {sorted(ours.keys() ^ theirs.keys())[:3]}"
    wrong = [n for n in ours if ours[n].dtype != theirs[n].dtype or not ours[n].equal(theirs[n])]
    return f"values: {wrong[:3]}" if wrong else ""


def main() -> None:
    """Print a line for each family and plan."""
    import tiny

    from surgery import Base, Plan
    from surgery.recipes.export import of_base

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, help="a Python that has mergekit")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="surgery-mergekit-") as name:
        folder = Path(name)
        python = options.python or install(folder / "env")
        for family, changes in FAMILIES.items():
            home = folder / family.replace(", ", "-")
            kind = family.partition(",")[0]
            tiny.model(kind, torch.bfloat16, **changes).save_pretrained(home)
            tiny.tokenizer().save_pretrained(home)
            base = Base.open(str(home))
            for number, text in enumerate(PLANS):
                plan = Plan.parse(text, base.depth)
                recipe = folder / "recipe.yaml"
                recipe.write_text(of_base(base, plan, str(home), None))
                ours = base.save(plan, folder / f"{home.name}-{number}")
                theirs = folder / f"{home.name}-{number}-mergekit"
                done = subprocess.run(
                    [python.parent / "mergekit-yaml", recipe, theirs],
                    capture_output=True,
                    text=True,
                    env={**os.environ, "HF_HUB_OFFLINE": "1"},
                )
                if done.returncode:
                    message = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                    result = f"mergekit failed: {message[:200]}"
                else:
                    result = difference(tensors(ours), tensors(theirs)) or "the same"
                failed += result != "the same"
                print(f"{family:18s} {text:24s} {result}", flush=True)
    sys.exit(failed > 0)
