"""What a save costs against `cp` of the bytes that it writes, and how much memory it takes.

Makes a sharded checkpoint of random bfloat16 in a temporary folder (4 to 6 GB of disk are used) and
runs `cp` and saves in turn. Options: --gigabytes 1.6, --rounds 5, --big (also a 140 GB model of
sparse files), --folder PLACE.
"""

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# A Llama of 16 layers; the hidden size follows from the size wanted.
LAYERS = 16
# Llama-2-70B's published shape: 138 GB in bfloat16.
LLAMA_70B = dict(hidden=8192, inner=28672, layers=80, heads=64, kv_heads=8, vocab=32000)

# Runs in a process of its own. Prints seconds and the peak of resident memory above what the
# imports take, which is measured by saving a model that is tiny first.
SAVE = """
import json, resource, shutil, sys, time
from surgery import Base, Plan
spec, warm, plan, out, verified, room = sys.argv[1:]
Base.open(warm).save(Plan.parse("0", 2), out + "-warm")
shutil.rmtree(out + "-warm")
if room == "sparse":  # holes take none, but the check for free space can't know
    shutil.disk_usage = lambda path: type("Usage", (), {"free": 1 << 50})
def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
floor = peak()
base = Base.open(spec)
begin, busy = time.perf_counter(), time.process_time()
base.save(Plan.parse(plan, base.depth), out, verified=verified == "verified")
print(json.dumps([time.perf_counter() - begin, time.process_time() - busy, peak() - floor]))
"""


def make(folder, hidden, inner, layers, heads, kv_heads, vocab, shard, sparse=False) -> None:
    """A Llama checkpoint in shards of at most `shard` bytes, of random values or of holes."""
    import torch
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    kv = hidden // heads * kv_heads
    tensors = {"model.embed_tokens.weight": (vocab, hidden), "lm_head.weight": (vocab, hidden)}
    tensors["model.norm.weight"] = (hidden,)
    for i in range(layers):
        head = f"model.layers.{i}."
        tensors |= {
            f"{head}input_layernorm.weight": (hidden,),
            f"{head}mlp.down_proj.weight": (hidden, inner),
            f"{head}mlp.gate_proj.weight": (inner, hidden),
            f"{head}mlp.up_proj.weight": (inner, hidden),
            f"{head}post_attention_layernorm.weight": (hidden,),
            f"{head}self_attn.k_proj.weight": (kv, hidden),
            f"{head}self_attn.o_proj.weight": (hidden, hidden),
            f"{head}self_attn.q_proj.weight": (hidden, hidden),
            f"{head}self_attn.v_proj.weight": (kv, hidden),
        }
    shards: list[list[str]] = [[]]
    for name in sorted(tensors):
        if sum(2 * math.prod(tensors[n]) for n in [*shards[-1], name]) > shard and shards[-1]:
            shards.append([])
        shards[-1].append(name)
    where = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, offset = {"__metadata__": {"format": "pt"}}, 0
        for name in names:
            size = 2 * math.prod(tensors[name])
            header[name] = {
                "dtype": "BF16",
                "shape": tensors[name],
                "data_offsets": [offset, offset + size],
            }
            offset += size
            where[name] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file, "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            if sparse:
                out.truncate(8 + len(text) + offset)
                continue
            for name in names:
                values = torch.randn(tensors[name], dtype=torch.float32).to(torch.bfloat16)
                out.write(values.view(-1).view(torch.uint8).numpy().data)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def run_save(folder: Path, base: Path, plan: str, verified: bool, sparse=False) -> list[float]:
    """[seconds, processor seconds, bytes of memory] of a save, which is left in `folder`/out."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    os.sync()  # what earlier runs left to write is not this one's affair
    arguments = [base, folder / "tiny", plan, out, "verified" if verified else "not"]
    done = subprocess.run(
        [sys.executable, "-c", SAVE, *map(str, arguments), "sparse" if sparse else "real"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def run_cp(folder: Path) -> list[float]:
    """[seconds, processor seconds] for `cp` of the weights that the last save wrote."""
    to = folder / "copy"
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    os.sync()
    begin, busy = time.perf_counter(), children()
    subprocess.run(["cp", *sorted((folder / "out").glob("*.safetensors")), to], check=True)
    return [time.perf_counter() - begin, children() - busy]


def children() -> float:
    """Processor seconds that ended subprocesses took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(folder: Path, base: Path, plan: str, rounds: int) -> None:
    """Print one line for a plan: the fastest of each, ratios to cp, and memory."""
    cp, plain, verified = [], [], []
    run_save(folder, base, plan, False)  # to have the source in the page cache, and bytes for cp
    for _ in range(rounds):
        cp.append(run_cp(folder))
        plain.append(run_save(folder, base, plan, False))
        verified.append(run_save(folder, base, plan, True))
    size = sum(p.stat().st_size for p in (folder / "out").glob("*.safetensors"))
    columns = []
    for kind in (0, 1):  # by the clock, of the processor
        best = [min(run[kind] for run in runs) for runs in (cp, plain, verified)]
        columns += [*best, best[1] / best[0], best[2] / best[0]]
    memory = max(run[2] for run in (*plain, *verified)) / 1e6
    print(f"{plan:12s}{size / 1e9:6.2f}", *(f"{n:6.2f}" for n in columns), f"{memory:6.1f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--big", action="store_true")
    parser.add_argument("--folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="surgery-save-", dir=options.folder) as name:
        folder = Path(name)
        hidden = max(256, round(math.sqrt(options.gigabytes * 1e9 / 2 / 14.5 / LAYERS) / 128) * 128)
        shape = dict(heads=hidden // 64, kv_heads=hidden // 128, vocab=8000)
        make(folder / "tiny", 64, 96, 2, 4, 2, 100, 1 << 30)
        make(folder / "base", hidden, 4 * hidden, LAYERS, **shape, shard=400_000_000)
        print("The fastest of each. Ratios are to cp; +v: with verifying; MB: memory above imports")
        print("                  | by the clock, s                  | processor, s")
        names = "     cp   save     +v  ratio     +v"
        print(f"plan            GB{names}{names}     MB")
        for plan in ("0:6, 10:16", "0:11, 5:16", "0:16"):
            compare(folder, folder / "base", plan, options.rounds)
        if options.big:
            shutil.rmtree(folder / "base")
            make(folder / "big", **LLAMA_70B, shard=10_000_000_000, sparse=True)
            seconds, _, peak = run_save(folder, folder / "big", "0:80", True, sparse=True)
            size = sum(p.stat().st_size for p in (folder / "out").glob("*.safetensors"))
            taken = sum(512 * p.stat().st_blocks for p in (folder / "out").iterdir())
            print(
                f"70B, sparse: {size / 1e9:.1f} GB in {seconds:.1f} s, {peak / 1e6:.1f} MB of "
                f"memory, {taken / 1e6:.1f} MB of disk"
            )
