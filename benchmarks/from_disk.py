"""A base larger than memory: scans, comparisons and text from disk, under a limit of the system.

A checkpoint with random weights of 2.4 GB is measured in a process that may use 1.4 GB, its share
of the system's page cache included (a control group, which takes root), and in one without limit
that has the weights in memory. Both have to come to the same numbers. Needs 2.4 GB of disk in the
current folder and 3.5 GB of memory.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 1_400_000_000
PLAN = "0:10, 14:24"
SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 49152,
    "tie_word_embeddings": False,
}
CGROUPS = Path("/sys/fs/cgroup")
TEXT = "The sun rises in the east and sets in the west, and the moon follows it. " * 40


def make(folder: Path) -> None:
    """Write the checkpoint."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from surgery import Base

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder, max_shard_size="600MB")
    Base.open("bundled").tokenizer.save_pretrained(folder)


def work(folder: str, from_disk: bool) -> None:
    """What a process measures; prints JSON."""
    import torch

    from surgery import Base, Plan
    from surgery.analysis import Sample, compare, scan
    from surgery.disk_reads import disk_reads

    torch.set_num_threads(os.cpu_count() or 1)
    base = Base.open(folder, from_disk=from_disk)
    base.load()
    plan = Plan.parse(PLAN, base.depth)
    sample = Sample.of(base, TEXT, limit=256)
    reads = disk_reads(base, plan)
    result: dict = {"reads": str(reads), "expected": reads and 1 / reads.seconds, "jobs": {}}

    def timed(name: str, job):
        begun, before = time.perf_counter(), _read_bytes()
        value = job()
        result["jobs"][name] = {
            "seconds": time.perf_counter() - begun,
            "read": _read_bytes() - before,
            "value": value,
        }

    def text() -> list:
        stream = base.operate(plan).stream("The sun", max_new_tokens=6, greedy=True)
        words = "".join(stream)
        result["tokens_per_second"] = stream.stats.tokens_per_second
        return [words]

    def scores() -> list:
        measured = scan(base, sample, scores=["block_influence", "repeat_map"], within=(8, 11))
        rows = measured.variants["repeat_map"].values()
        return [*measured.block_influence, *(row.perplexity for row in rows)]

    def comparison() -> list:
        measured = compare(base, plan, sample)
        return [measured.base.perplexity, measured.patient.perplexity, measured.kl]

    timed("scan: Block Influence and 6 repeated blocks", scores)
    timed(f"compare with {PLAN}", comparison)
    timed("6 tokens of text", text)
    print(json.dumps(result))


def _read_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


def run(folder: Path, group: Path | None) -> dict:
    """The results of a process, within a control group if one is given."""

    def enter() -> None:
        if group:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "from_disk", str(folder), str(bool(group))],
            env={**os.environ, "LAYER_SURGERY_CACHE": cache},
            preexec_fn=enter,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def limited_group() -> tuple[Path, Path]:
    """A new control group with the limit, and the file that has its peak."""
    old = (CGROUPS / "memory").is_dir()
    group = (CGROUPS / "memory" if old else CGROUPS) / f"layer-surgery-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(LIMIT))
        if not old:
            (group / "memory.swap.max").write_text("0")
    except OSError as error:
        sys.exit(f"A control group can't be made here ({error}): it takes root.")
    return group, group / ("memory.max_usage_in_bytes" if old else "memory.peak")


def main() -> None:
    """Print the table."""
    if len(sys.argv) > 1:
        work(sys.argv[1], sys.argv[2] == "True")
        return
    folder = Path(tempfile.mkdtemp(prefix="from-disk-", dir="."))
    group, peak = limited_group()
    try:
        make(folder)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        for file in folder.glob("*.safetensors"):  # else they count as the memory of another group
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        disk = run(folder, group)
        print(f"weights {size / 1e9:.2f} GB, limit {LIMIT / 1e9:.2f} GB: {size / LIMIT:.2f} times")
        print(f"peak of the group {int(peak.read_text()) / 1e9:.2f} GB")
        print(disk["reads"])
        memory = run(folder, None)
        print(f"\n{'':46s} from disk  GB read   in memory   same numbers")
        for name, job in disk["jobs"].items():
            other = memory["jobs"][name]
            print(
                f"{name:46s} {job['seconds']:7.1f} s {job['read'] / 1e9:8.1f} "
                f"{other['seconds']:9.1f} s   {job['value'] == other['value']}"
            )
        print(
            f"tokens/s: {disk['tokens_per_second']:.2f} from disk ({disk['expected']:.2f} "
            f"expected), {memory['tokens_per_second']:.2f} in memory"
        )
    finally:
        group.rmdir()
        shutil.rmtree(folder)
