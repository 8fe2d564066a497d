"""What a save from GGUF to GGUF costs against `cp` of the file that it writes, and its memory.

Makes a GGUF file of random Q8_0 blocks in a temporary folder (three times its size of disk is used)
and runs `cp` and saves in turn. Options: --gigabytes 1.6, --rounds 5, --folder PLACE.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from .save import children

LAYERS = 16
TOKENS = 128_000  # strings in the header, as in Llama 3's
_BLOCK = (32, 34)  # values and bytes of Q8_0

# Runs in a process of its own, as in `save`. Prints seconds and the peak of memory above what a
# tiny save takes.
SAVE = """
import json, sys, time
from pathlib import Path
from surgery import Plan
from surgery.gguf import open_gguf_file, save_gguf
spec, warm, plan, out, verified = sys.argv[1:]
save_gguf(open_gguf_file(Path(warm)), Plan.parse("0", 2), Path(warm).with_name("warm.gguf"),
          overwrite=True)
def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
floor = peak()
begin, busy = time.perf_counter(), time.process_time()
base = open_gguf_file(Path(spec))
save_gguf(base, Plan.parse(plan, base.depth), Path(out), verified=verified == "verified")
print(json.dumps([time.perf_counter() - begin, time.process_time() - busy, peak() - floor]))
"""


def make(path: Path, hidden: int, layers: int, tokens: int) -> None:
    """A Llama of random blocks."""
    writer = GGUFWriter(path, "llama", use_temp_file=True)
    writer.add_block_count(layers)
    writer.add_head_count(8)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{i}" for i in range(tokens)])
    rng = np.random.default_rng(0)
    kind = GGMLQuantizationType.Q8_0
    writer.add_tensor("token_embd.weight", blocks(rng, 8000, hidden), raw_dtype=kind)
    shapes = {
        **dict.fromkeys(("attn_q", "attn_output"), (hidden, hidden)),
        **dict.fromkeys(("attn_k", "attn_v"), (hidden // 4, hidden)),
        **dict.fromkeys(("ffn_gate", "ffn_up"), (4 * hidden, hidden)),
        "ffn_down": (hidden, 4 * hidden),
    }
    for layer in range(layers):
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", np.ones(hidden, np.float32))
        for name, shape in shapes.items():
            data = blocks(rng, *shape)
            writer.add_tensor(f"blk.{layer}.{name}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def blocks(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows of random blocks."""
    return rng.integers(0, 256, (rows, columns // _BLOCK[0] * _BLOCK[1]), dtype=np.uint8)


def run_save(folder: Path, plan: str, verified: bool) -> list[float]:
    """[seconds, processor seconds, bytes of memory] of a save, which is left as out.gguf."""
    out = folder / "out.gguf"
    out.unlink(missing_ok=True)
    os.sync()
    arguments = [
        folder / "base.gguf",
        folder / "tiny.gguf",
        plan,
        out,
        "verified" if verified else "not",
    ]
    done = subprocess.run(
        [sys.executable, "-c", SAVE, *map(str, arguments)], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def run_cp(folder: Path) -> list[float]:
    """[seconds, processor seconds] for `cp` of what the last save wrote."""
    copy = folder / "copy.gguf"
    copy.unlink(missing_ok=True)
    os.sync()
    begin, busy = time.perf_counter(), children()
    subprocess.run(["cp", folder / "out.gguf", copy], check=True)
    return [time.perf_counter() - begin, children() - busy]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder")
    options = parser.parse_args()
    values = options.gigabytes * 1e9 / _BLOCK[1] * _BLOCK[0]
    hidden = max(256, round(math.sqrt(values / 14.5 / LAYERS) / 128) * 128)
    with tempfile.TemporaryDirectory(prefix="surgery-gguf-", dir=options.folder) as name:
        folder = Path(name)
        make(folder / "tiny.gguf", 256, 2, 100)
        make(folder / "base.gguf", hidden, LAYERS, TOKENS)
        print("The fastest of each. Ratios are to cp; +v: with verifying; MB: memory above imports")
        print("                  | by the clock, s                  | processor, s")
        names = "     cp   save     +v  ratio     +v"
        print(f"plan            GB{names}{names}     MB")
        for plan in ("0:6, 10:16", "0:11, 5:16", "0:16"):
            cp, plain, verified = [], [], []
            run_save(folder, plan, False)  # to have the source in the page cache, and a file for cp
            for _ in range(options.rounds):
                cp.append(run_cp(folder))
                plain.append(run_save(folder, plan, False))
                verified.append(run_save(folder, plan, True))
            columns = []
            for kind in (0, 1):
                best = [min(run[kind] for run in runs) for runs in (cp, plain, verified)]
                columns += [*best, best[1] / best[0], best[2] / best[0]]
            memory = max(run[2] for run in (*plain, *verified)) / 1e6
            size = (folder / "out.gguf").stat().st_size
            shown = " ".join(f"{n:6.2f}" for n in columns)
            print(f"{plan:12s}{size / 1e9:6.2f} {shown} {memory:6.1f}", flush=True)
