"""GGUF files in llama.cpp: `python -m tests.gguf_runtime` builds an environment for it.

The bundled model is written as GGUF and quantized, operated on, and run in llama.cpp, whose greedy
text is compared with the patient's. Files that are wrong on purpose show that the comparison can
fail. The environment takes torch and transformers from the one that runs this, and installs
llama-cpp-python, which is compiled: that takes a C++ compiler and most of the minutes. `--python
PATH` takes one that is there already, `--program PATH` also compares llama.cpp's own program
(llama-completion), and `--converter PATH` its convert_hf_to_gguf.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CHECKS = ("formats", "plans", "wrong", "command", "program", "converter")
Results = Iterator[tuple[str, str, str]]  # what was compared, what is wrong or "", figures
PLANS = {
    "dropped": "0:13, 17:30",
    "repeated": "0:22, 8:30",
    "reordered": "0:10, 12, 11, 10, 13:30",
    "identity": "0:8, 7@identity, 8:30",
    "scaled": "0:13, 13@scale=0.5, 14:30",
    "parts": "0:20, 20@no-attention, 21@no-mlp, 22:30",
}
# Each differs from “0:13, 17:30” in one thing.
WRONG = {
    "another layer": "0:12, 13, 17:30",
    "two exchanged": "0:11, 12, 11, 17:30",
    "one halved": "0:12, 12@scale=0.5, 17:30",
    "one is the identity": "0:12, 12@identity, 17:30",
    "one without its MLP": "0:12, 12@no-mlp, 17:30",
}
_QUANTISE = """
import sys
from llama_cpp import llama_model_quantize, llama_model_quantize_default_params as defaults
import llama_cpp
source, target, kind = sys.argv[1:]
options = defaults()
options.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + kind)
sys.exit(llama_model_quantize(source.encode(), target.encode(), options))
"""
_VERSION = "import llama_cpp; print('llama-cpp-python', llama_cpp.__version__)"


def main() -> None:
    """Print a line for everything that is compared, and exit with 1 if any differs."""
    sys.path[:0] = [str(ROOT), str(HERE)]
    parser = argparse.ArgumentParser(prog="python -m tests.gguf_runtime", description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--python", type=Path, help="an interpreter with llama-cpp-python")
    parser.add_argument("--program", type=Path, help="llama.cpp's llama-completion")
    parser.add_argument("--converter", type=Path, help="llama.cpp's convert_hf_to_gguf.py")
    given = parser.parse_args()
    if unknown := set(given.checks) - set(CHECKS):
        parser.error(f"no such check: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="gguf-runtime-") as name:
        folder = Path(name)
        python = (given.python or _environment(folder / "env")).absolute()
        print(subprocess.check_output([python, "-c", _VERSION], text=True).strip(), flush=True)
        lab, failed = Lab(python, folder, given.program, given.converter), 0
        for check in given.checks or CHECKS:
            for what, problem, note in getattr(lab, check)():
                failed += bool(problem)
                print(f"{check:10} {what}: {problem or 'right'} {note}", flush=True)
        lab.close()
    sys.exit(bool(failed))


def _environment(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    there = subprocess.check_output([python, "-c", ask], text=True).strip()
    (Path(there) / "outer.pth").write_text(sysconfig.get_path("purelib"))
    install = [python, "-m", "pip", "install", "-q", "llama-cpp-python"]
    subprocess.run(install, check=True)
    return python


class Lab:
    """The checks, with the files that they share. Each yields what was compared, what is wrong with
    it or "", and the figures."""

    def __init__(
        self, python: Path, folder: Path, program: Path | None, converter: Path | None
    ) -> None:
        from surgery import Base
        from surgery.gguf.llama_cpp import LlamaCpp

        self.python, self.folder = python, folder
        self._open, self._references = ExitStack(), {}
        self.runtime = LlamaCpp(python, True)
        self._program, self._converter = program, converter
        self.bundled = Base.open("bundled")
        self.f16 = folder / "f16.gguf"
        _write(self.bundled, self.f16, Type.F16)
        self.q8 = folder / "q8_0.gguf"
        _write(self.bundled, self.q8, Type.Q8_0)

    def close(self) -> None:
        """Remove the dequantized bases."""
        self._open.close()

    def formats(self) -> Results:
        """One plan of files in several formats."""
        files = {"F16": self.f16, "Q8_0": self.q8}
        for kind in ("Q4_K_M", "Q4_0", "Q2_K"):
            files[kind] = self._quantized(kind)
        for kind, file in files.items():
            for _, *result in self._compared(file, {"": "0:13, 17:30"}):
                yield (kind, *result)

    def plans(self) -> Results:
        """Several plans of one file, and some in a K-quant."""
        yield from self._compared(self.q8, PLANS)
        some = {f"{what}, Q4_K_M": PLANS[what] for what in ("repeated", "identity")}
        yield from self._compared(self._quantized("Q4_K_M"), some)

    def command(self) -> Results:
        """A model in pieces, on the command line."""
        out = self.folder / "cut.gguf"
        self._surgery("save", self.q8, PLANS["dropped"], out, "--shard-size", "50MB")
        first = min(self.folder.glob("cut-*.gguf"))
        named = ("--runtime", "llama.cpp", "--llama-cpp", self.python)
        done = self._surgery("verify", first, self.q8, *named, check=False)
        figures = done.stdout.strip().splitlines()[-1:] or [""]
        yield ("in pieces", done.stderr.strip() if done.returncode else "", figures[0])

    def wrong(self) -> Results:
        """Files that hold another plan than they are compared with are found out."""
        for what, plan in WRONG.items():
            for _, problem, note in self._compared(self.q8, {"": plan}, "0:13, 17:30"):
                yield (what, "" if problem else "not noticed", note)

    def program(self) -> Results:
        """llama.cpp's own program."""
        from surgery.gguf.llama_cpp import find_llama_cpp

        if self._program is None:
            yield ("not named", "", "")
            return
        self.runtime, python = find_llama_cpp(self._program), self.runtime
        yield from self._compared(self.q8, {what: PLANS[what] for what in ("dropped", "repeated")})
        self.runtime = python

    def converter(self) -> Results:
        """The bundled model saved as GGUF by llama.cpp's converter holds the tensors that the GGUF
        file of the base would give."""
        if self._converter is None:
            yield ("not named", "", "")
            return
        out, own = self.folder / "converted.gguf", self.folder / "own.gguf"
        plan = PLANS["dropped"]
        self._surgery("save", "bundled", plan, out, "--converter", self._converter)
        bf16 = self.folder / "bf16.gguf"
        _write(self.bundled, bf16, Type.BF16)
        self._surgery("save", bf16, plan, own)
        one, other = (
            {t.name: t.data.tobytes() for t in gguf.GGUFReader(path).tensors} for path in (out, own)
        )
        same = one == other
        yield ("the tensors", "" if same else "they differ", f"{len(one)} tensors")

    def _compared(self, file: Path, plans: dict[str, str], told: str | None = None) -> Results:
        """Files of plans in llama.cpp, against the patients of these plans or of one `told`."""
        from surgery import Plan, SurgeryError
        from surgery.gguf import open_gguf_file, save_gguf
        from surgery.progress import silent
        from surgery.verification.llama_cpp import agreement, in_float32

        base = open_gguf_file(file)
        if file not in self._references:
            self._references[file] = self._open.enter_context(in_float32(base, silent))
        reference, out = self._references[file], self.folder / "out.gguf"
        for what, text in plans.items():
            save_gguf(base, Plan.parse(text, base.depth), out, overwrite=True)
            plan = Plan.parse(told or text, base.depth)
            try:
                found = agreement(out, reference, plan, self.runtime, silent)
            except SurgeryError as error:
                yield (what, str(error), "")
                continue
            problem = "" if found.holds else "computes another model"
            yield (
                what,
                problem,
                f"{found.equal} of {found.tokens} equal, at most "
                f"{found.largest:.3f} nats apart, {found.mean:.4f} on average",
            )

    def _quantized(self, kind: str) -> Path:
        out = self.folder / f"{kind}.gguf"
        if not out.exists():
            arguments = [self.python, "-c", _QUANTISE, self.f16, out, kind]
            subprocess.run(arguments, check=True, capture_output=True)
        return out

    def _surgery(self, *arguments: Any, check: bool = True) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [sys.executable, "-m", "surgery", *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        )
        if check and done.returncode:
            sys.exit(done.stderr)
        return done


def _write(base: Any, path: Path, kind: Type) -> None:
    """The bundled model as GGUF, as llama.cpp's converter lays it out."""
    from safetensors import safe_open

    config, folder = base.source.config, base.source.fetch()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("bundled")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    _write_tokenizer(writer, base, folder, config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    with safe_open(folder / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118  not a dict
            values = file.get_tensor(name).float().numpy()
            for part, count in heads.items():
                if part in name:  # llama.cpp rotates neighbouring values
                    rows = values.reshape(count, 2, -1, values.shape[-1])
                    values = np.ascontiguousarray(rows.swapaxes(1, 2).reshape(values.shape))
            stem, _, end = name.rpartition(".")
            stored = kind if values.ndim > 1 else Type.F32
            data = gguf.quants.quantize(values, stored)
            writer.add_tensor(f"{names.get_name(stem)}.{end}", data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_tokenizer(writer: gguf.GGUFWriter, base: Any, folder: Path, size: int) -> None:
    tokenizer = base.tokenizer
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    words = {i: word for word, i in tokenizer.get_vocab().items()}
    control, normal = int(gguf.TokenType.CONTROL), int(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([words[i] for i in range(size)])
    writer.add_token_types([control if i in special else normal for i in range(size)])
    gguf.SpecialVocab(folder, load_merges=True).add_to_gguf(writer)


if __name__ == "__main__":
    main()
