"""Every speed in one table, each beside what one would do instead, measured in turns in one run.

Prints Markdown. Each group runs in a process of its own. Takes about ten minutes on two cores, and
2 GB of disk. `python -m benchmarks all text scan` runs only these groups. Set
`ONEDNN_MAX_CPU_ISA=AVX2` to see what a processor without AVX-512 does.
"""

import copy
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import save, scan, weights

ROUNDS = 3
PLAN = "0:13, 17:30"

# (what, ours, instead, what instead, unit): less is better but for units per second.
Row = tuple[str, float, float, str, str]


def in_turns(*works: Callable[[], float]) -> list[float]:
    """The best of some rounds of each; they take turns. Each returns its seconds."""
    return [
        min(times) for times in zip(*([w() for w in works] for _ in range(ROUNDS)), strict=True)
    ]


def clock(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def plain_models() -> dict:
    """The bundled model as transformers loads it, in float32 and in the dtype it is stored in."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from surgery import Base

    logging.disable_progress_bar()

    folder, _ = Base.open("bundled").stored()
    return {
        name: AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, name)).eval()
        for name in ("float32", "bfloat16")
    }


def text() -> list[Row]:
    """Answers, against `generate` in the dtype that is faster."""
    import torch

    from surgery import Base, Plan
    from surgery.texts import TEXTS

    base = Base.open("bundled")
    base.load()
    patient = base.operate(Plan.whole(base.depth))
    models = plain_models()
    rows: list[Row] = []
    for words, new in ((400, 16), (8, 48)):
        ids = base.tokenizer(TEXTS["prose"])["input_ids"][:words]
        prompt = base.tokenizer.decode(ids)
        length = len(base.tokenizer(prompt)["input_ids"])

        def ours(prompt=prompt, new=new) -> float:
            stream = patient.stream(prompt, max_new_tokens=new, greedy=True)
            return clock(lambda: list(stream))

        def plain(model, prompt=prompt, new=new) -> Callable[[], float]:
            given = base.tokenizer(prompt, return_tensors="pt")
            options = dict(max_new_tokens=new, min_new_tokens=new, do_sample=False)
            return lambda: clock(lambda: model.generate(**given, **options))

        with torch.no_grad():
            mine, *theirs = in_turns(ours, *map(plain, models.values()))
        best = min(theirs)
        which = list(models)[theirs.index(best)]
        what = f"a prompt of {length} tokens and {new} more"
        rows.append((what, mine, best, f"`generate` of transformers in {which}", "s"))
    return rows


def layer_scan() -> list[Row]:
    """A scan, against running every variant whole, and against its products alone."""
    import torch

    from surgery import Base
    from surgery.analysis import Sample
    from surgery.texts import TEXTS

    measured = scan.measure()
    base = Base.open("bundled")
    sample = Sample.of(base, list(TEXTS.values()), limit=scan.TOKENS)
    per_variant = {}
    for name, model in plain_models().items():
        whole = model.model.layers

        def variant(layers: list, model=model, whole=whole) -> None:
            model.model.layers = torch.nn.ModuleList(layers)
            try:
                with torch.no_grad():
                    for window in sample.windows:
                        ids = torch.tensor([window])
                        model(input_ids=ids, labels=ids, use_cache=False)
            finally:
                model.model.layers = whole

        layers = list(whole)
        variant(layers)  # warm
        some = [[*layers[:i], *layers[i + 1 :]] for i in (5, 20)]
        some += [[*layers[: i + 1], *layers[i:]] for i in (5, 20)]
        per_variant[name] = sum(clock(lambda v=v: variant(v)) for v in some) / len(some)
    best = min(per_variant, key=lambda name: per_variant[name])
    naive = per_variant[best] * (2 * base.depth + 1)
    what = f"scan, drop-one and repeat-one, {measured['tokens']} tokens"
    return [
        (what, measured["seconds"], naive, f"each variant whole in {best}, 4 of 61 timed", "s"),
        (what, measured["seconds"], measured["limit"], "its matrix products alone", "s"),
    ]


def operate() -> list[Row]:
    """An edit and a patient, against a deep copy of the model without some layers."""
    import torch

    from surgery import Base, Plan

    base = Base.open("bundled")
    base.load()
    plans = [Plan.whole(30).drop(i, i + 3) for i in range(1, 20)]
    base.operate(plans[-1])
    model = plain_models()["bfloat16"]

    def ours() -> float:
        return clock(lambda: [base.operate(plan) for plan in plans]) / len(plans)

    def plain() -> float:
        def cut() -> None:
            twin = copy.deepcopy(model)
            twin.model.layers = torch.nn.ModuleList([*twin.model.layers][3:])

        return clock(cut)

    mine, theirs = in_turns(ours, plain)
    return [("operate: a runnable patient", 1000 * mine, 1000 * theirs, "`copy.deepcopy`", "ms")]


def saving() -> list[Row]:
    """A verified save, against `cp` of the bytes that it writes."""
    with tempfile.TemporaryDirectory(prefix="surgery-all-", dir=".") as name:
        folder = Path(name)
        save.make(folder / "tiny", 64, 96, 2, 4, 2, 100, 1 << 30)
        shape = dict(heads=16, kv_heads=8, vocab=8000)
        save.make(folder / "base", 1024, 4096, save.LAYERS, **shape, shard=200_000_000)
        save.run_save(folder, folder / "base", "0:11, 5:16", False)
        size = sum(p.stat().st_size for p in (folder / "out").glob("*.safetensors"))
        mine, cp = in_turns(
            lambda: save.run_save(folder, folder / "base", "0:11, 5:16", True)[0],
            lambda: save.run_cp(folder)[0],
        )
    return [(f"save and verify {size / 1e9:.1f} GB", mine, cp, "`cp` of the same bytes", "s")]


def counting() -> list[Row]:
    """Distributions of weights, against `torch.histc` and `cat`."""
    import torch

    from surgery import Base
    from surgery.weight_stats import count_tensor
    from surgery.weight_stats.counting import count_stored
    from surgery.weight_stats.survey import take

    torch.set_num_threads(1)
    values = (torch.randn(weights.VALUES) * 0.02).to(torch.bfloat16)
    taken = weights.best(
        {
            "ours": lambda: count_tensor(values),
            "histc": lambda: torch.histc(values.float(), 256, -0.15, 0.15),
        }
    )
    base = Base.open("bundled")
    folder, stored = base.stored()
    files = sorted({tensor.file for tensor in stored.values()})
    cat = ["cat", *files]
    file = weights.best(
        {
            "ours": lambda: count_stored(folder, list(stored.values())),
            "all": lambda: take(base),
            "cat": lambda: subprocess.run(cat, cwd=folder, stdout=subprocess.DEVNULL, check=True),
        }
    )
    million = weights.VALUES // 10**6
    return [
        (
            f"count {million} million bfloat16 values, one thread",
            1000 * taken["ours"],
            1000 * taken["histc"],
            "`torch.histc` in float32, 256 bins",
            "ms",
        ),
        (
            "count the bundled model's file, in memory already, one thread",
            1000 * file["ours"],
            1000 * file["cat"],
            "`cat` to /dev/null",
            "ms",
        ),
        (
            "the same by tensor and layer, as *Weights* does",
            1000 * file["all"],
            1000 * file["cat"],
            "`cat` to /dev/null",
            "ms",
        ),
    ]


def commands() -> list[Row]:
    """Commands on a known base, against importing what an unknown one needs."""

    def run(*arguments: str) -> Callable[[], float]:
        command = [sys.executable, *arguments]
        return lambda: clock(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))

    preview = run("-m", "surgery", "preview", "bundled", PLAN)
    preview()
    mine, help_, theirs = in_turns(
        preview,
        run("-m", "surgery", "--help"),
        run("-c", "import torch, transformers.modeling_utils"),
    )
    what = "importing torch and transformers"
    return [
        ("`preview` of a known base", mine, theirs, what, "s"),
        ("`--help`", help_, theirs, what, "s"),
    ]


def healing() -> list[Row]:
    """Training, against a plain loop over the same layers in the dtype that is faster."""
    import torch
    from torch.nn import functional as F

    from surgery import Base, Plan
    from surgery.healing import HealingRun, Settings
    from surgery.healing.student import trained_layers
    from surgery.texts import TEXTS

    base = Base.open("bundled")
    plan = Plan.parse(PLAN, base.depth)
    steps = 6
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "text.txt"
        source.write_text("\n".join(TEXTS.values()) * 40, encoding="utf-8")
        settings = Settings(text=str(source), steps=steps, evaluate_every=steps, batch=2)
        run = HealingRun(base, plan, settings, Path(name) / "run")
        times, last = [], time.perf_counter()
        for _ in run:
            now = time.perf_counter()
            times.append(now - last)
            last = now
    trained = trained_layers(plan, settings)
    mine = settings.tokens_per_step / min(times[1:-1])  # the last one also evaluates
    best, which = 0.0, ""
    for name, teacher in plain_models().items():
        student = copy.deepcopy(teacher)
        student.model.layers = torch.nn.ModuleList([student.model.layers[i] for i in plan.sources])
        student.requires_grad_(False)
        for i in trained:
            student.model.layers[i].requires_grad_(True)
        weights_ = [p for p in student.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights_, 5e-4)
        ids = torch.randint(0, 49152, (settings.batch, settings.window))
        taken = []
        for _ in range(4):

            def step(student=student, teacher=teacher, optimizer=optimizer, ids=ids) -> None:
                with torch.no_grad():
                    target = teacher(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
                found = student(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
                loss = F.kl_div(found, target, log_target=True, reduction="sum") / ids.numel()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

            taken.append(clock(step))
        if (speed := settings.tokens_per_step / min(taken)) > best:
            best, which = speed, name
    return [
        (
            f"heal {PLAN}: train {len(trained)} layers",
            mine,
            best,
            f"a plain loop in {which}",
            "tokens/s",
        )
    ]


GROUPS = {
    "text": text,
    "scan": layer_scan,
    "heal": healing,
    "operate": operate,
    "commands": commands,
    "save": saving,
    "weights": counting,
}


def machine() -> str:
    """The machine in a line."""
    import torch

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.split(": ")[1] for x in lines if x.startswith("model name")), cpu)
    speeds = ", ".join(
        f"{str(dtype).removeprefix('torch.')} {2 * 256 * 1024**2 / seconds / 1e9:.0f}"
        for dtype in (torch.float32, torch.bfloat16)
        for seconds in [_product_seconds(dtype)]
    )
    if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        cpu += f" limited to {limit}"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    date = time.strftime("%Y-%m-%d")
    return f"{cpu}, {os.cpu_count()} cores; GFLOP/s: {speeds}; {versions}; {date}"


def _product_seconds(dtype) -> float:
    import torch

    linear = torch.nn.Sequential(torch.nn.Linear(1024, 1024, bias=False))
    return scan.product_seconds(linear, 256, dtype)


def main() -> None:
    """Print the table."""
    wanted = sys.argv[1:]
    if wanted[:1] == ["--group"]:
        print(json.dumps(GROUPS[wanted[1]]()))
        return
    if unknown := [name for name in wanted if name not in GROUPS]:
        sys.exit(f"“{unknown[0]}” is none of {', '.join(GROUPS)}.")
    print(machine(), "\n")
    print("| | ours | instead | | ours / instead |")
    print("|---|--:|--:|---|--:|", flush=True)
    for group in wanted or GROUPS:
        command = [sys.executable, "-m", "benchmarks", "all", "--group", group]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        for what, ours, instead, how, unit in json.loads(done.stdout.splitlines()[-1]):
            print(
                f"| {what} | {ours:,.3g} {unit} | {instead:,.3g} {unit} | {how} | "
                f"{ours / instead:.2f} |",
                flush=True,
            )
