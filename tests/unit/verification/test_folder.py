"""A saved folder in other runtimes: what is right holds, what is wrong is refused, and the card
lists just what held."""

import json
import re
import shutil
import sys
from dataclasses import replace

import pytest

from surgery import Base, Plan, SaveError, SurgeryError
from surgery.checkpoint.card_proofs import Proof, withdraw, write_proof
from surgery.cli import main
from surgery.progress import silent
from surgery.verification.folder import verify_folder
from surgery.verification.llama_cpp import TOKENS, compare
from surgery.verification.runtimes import Continued, find_runtime
from surgery.verification.saved import Recorded

PLAN = "0:2, 4:6, 5"
# Stands in for vLLM: answers with the tokens in a file, by the number of the prompt's tokens.
VLLM = """
import atexit, json, os
__version__ = "0.0.fake"
atexit.register(print, "INFO shutting down")
class Holder:
    def __init__(self, **fields): vars(self).update(fields)
class SamplingParams(Holder): pass
class LLM:
    def __init__(self, model, seed, max_model_len, enforce_eager, trust_remote_code):
        assert os.path.isfile(f"{model}/config.json") and trust_remote_code is False
        assert os.environ["VLLM_NO_USAGE_STATS"] == os.environ["HF_HUB_OFFLINE"] == "1"
        self.longest = max_model_len
        self.llm_engine = Holder(model_config=Holder(dtype="torch.bfloat16"))
    def generate(self, prompts, greedy):
        assert greedy.temperature == 0 and greedy.max_tokens == 32
        answers = json.load(open(os.environ["ANSWERS"]))
        ids = [answers[str(len(one["prompt_token_ids"]))] for one in prompts]
        assert max(len(one["prompt_token_ids"]) + 32 for one in prompts) <= self.longest
        return [Holder(outputs=[Holder(token_ids=made)]) for made in ids]
"""


class Fixed:
    """A runtime that has written these tokens."""

    package = "transformers"

    def __init__(self, *answers: list[int], dtype: str = "float32") -> None:
        self.made = Continued(tuple(map(tuple, answers)), "1.0", dtype)

    def continue_all(self, *_):
        return self.made


@pytest.fixture(scope="module")
def made(tiny_folder, tmp_path_factory):
    base = Base.open(str(tiny_folder("llama")))
    place = tmp_path_factory.mktemp("saved") / "out"
    return base, base.save(Plan.parse(PLAN, base.depth), place)


@pytest.fixture
def saved(made, tmp_path, monkeypatch):
    """(base, a copy of the saved folder)"""
    monkeypatch.setattr("surgery.verification.folder.TEXTS", ("ab", "abc"))
    base, out = made
    return base, shutil.copytree(out, tmp_path / "out")


def own_tokens(base, plan):
    """The patient's greedy tokens after both prompts."""
    patient = base.operate(Plan.parse(plan, base.depth))
    answers = []
    for text in ("ab", "abc"):
        stream = patient.stream(text, greedy=True, max_new_tokens=TOKENS)
        list(stream)
        answers.append(stream.ids)
    return answers


def rows(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if re.search(r"\| \d{4}-\d\d-\d\d \|$", line)]


def test_plain_transformers_says_the_patients_tokens(saved, capsys, monkeypatch, warm):
    """In a process of its own, by the command; a second run leaves one line."""
    base, out = saved
    monkeypatch.setattr(sys, "executable", warm.executable)  # for what runs transformers
    card = (out / "README.md").read_bytes()
    command = ["verify", str(out), str(base.source.home), "--card"]
    assert main.main(command) == 0 and len(rows(out)) == 1
    assert main.main([*command, "--runtime", "transformers"]) == 0
    assert "in float32: the patient's own" in capsys.readouterr().out
    ours, its = rows(out)
    assert ours.startswith("| Layer Surgery | ") and "tensors" in ours
    assert its.startswith("| transformers | ") and "after 2 prompts in float32" in its
    text = (out / "README.md").read_bytes()
    assert text.startswith(card) and text.count(b"## Verified") == 1


def test_what_a_runtime_computes_otherwise_is_refused(saved):
    base, out = saved
    found = Recorded(base, Plan.parse(PLAN, base.depth), None)
    good, bad = own_tokens(base, PLAN), own_tokens(base, "0:2, 5, 4, 5")
    assert good != bad
    agreement, _ = verify_folder(out, found, Fixed(*good), silent)
    assert agreement.equal == agreement.tokens == sum(map(len, good))
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(SaveError, match="computes another model"):
            verify_folder(out, found, Fixed(*bad, dtype=dtype), silent)
    with pytest.raises(SaveError, match="None of the texts"):
        verify_folder(out, found, Fixed([], []), silent)
    with pytest.raises(SurgeryError, match="only for the first 128"):
        verify_folder(out, found, Fixed([999], [3]), silent)


def test_float32_has_to_agree_but_for_ties(saved, monkeypatch):
    """One token that is a little less likely passes where fewer bits are computed with, only."""
    base, out = saved
    found = Recorded(base, Plan.parse(PLAN, base.depth), None)
    good = own_tokens(base, PLAN)

    def near(model, pairs):
        return replace(compare(model, pairs), equal=1, mean=0.01, largest=0.3)

    monkeypatch.setattr("surgery.verification.folder.compare", near)
    verify_folder(out, found, Fixed(*good, dtype="bfloat16"), silent)
    with pytest.raises(SaveError, match=r"0\.300 at most"):
        verify_folder(out, found, Fixed(*good), silent)


def test_weights_that_were_rounded_for_the_save(saved, tmp_path):
    base, _ = saved
    plan = Plan.parse(PLAN, base.depth)
    out = base.save(plan, tmp_path / "half", dtype="bfloat16")
    again = Base.open(str(out))
    rounded = own_tokens(again, f"0:{again.depth}")
    found = Recorded(base, plan, "bfloat16")
    agreement, _ = verify_folder(out, found, Fixed(*rounded, dtype="bfloat16"), silent)
    assert agreement.mean < 0.01


def test_vllm_by_a_stand_in(saved, tmp_path, monkeypatch, capsys):
    """A failed proof takes its line out of the card, and no other."""
    base, out = saved
    package = tmp_path / "fake" / "vllm.py"
    package.parent.mkdir()
    package.write_text(VLLM)
    answers = tmp_path / "answers.json"
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("ANSWERS", str(answers))
    lengths = [len(base.tokenizer(text).input_ids) for text in ("ab", "abc")]
    command = ["verify", str(out), str(base.source.home), "--runtime", "vllm", "--card"]
    command += ["--python", sys.executable]
    answers.write_text(json.dumps(dict(zip(lengths, own_tokens(base, PLAN), strict=True))))
    assert main.main(command) == 0
    assert "vllm 0.0.fake: loads; " in capsys.readouterr().out
    write_proof(out, Proof("transformers", "5.0", "loads"))
    assert [row.split(" | ")[0] for row in rows(out)] == [
        "| Layer Surgery",
        "| vllm",
        "| transformers",
    ]
    answers.write_text(json.dumps(dict(zip(lengths, own_tokens(base, "5:6"), strict=True))))
    assert main.main(command) == 1
    assert "vllm 0.0.fake computes another model" in " ".join(capsys.readouterr().err.split())
    assert [row.split(" | ")[0] for row in rows(out)] == ["| Layer Surgery", "| transformers"]
    package.write_text("raise ImportError('no torch')")
    assert main.main(command) == 1
    assert "can't be imported (no torch): pip install vllm" in capsys.readouterr().err


def test_other_bytes_take_every_proof_out_of_the_card(saved, capsys):
    base, out = saved
    card = (out / "README.md").read_bytes()
    write_proof(out, Proof("transformers", "5.0", "loads"))
    path = out / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert main.main(["verify", str(out), str(base.source.home), "--card"]) == 1
    assert "is not what its plan says" in capsys.readouterr().err
    assert (out / "README.md").read_bytes() == card


def test_the_rest_of_the_card_is_left(saved):
    _, out = saved
    path = out / "README.md"
    path.write_bytes(b"# Mine\r\n\r\ntext | cell |\r\n\r\n\r\n")
    write_proof(out, Proof("a | <b>", "", "held"))
    (row,) = rows(out)
    assert row.startswith("| a \\| &lt;b> | not stated | held | 20")
    path.write_bytes(path.read_bytes() + b"\n## After\n")
    write_proof(out, Proof("a | <b>", "2", "held"))
    write_proof(out, Proof("c", "1", "held"))
    text = path.read_bytes()
    assert text.startswith(b"# Mine\r\n\r\ntext | cell |") and text.endswith(b"\n\n## After\n")
    assert len(rows(out)) == 2 and text.count(b"## Verified") == 1
    withdraw(out, "c")
    assert len(rows(out)) == 1
    withdraw(out)
    assert path.read_bytes() == b"# Mine\r\n\r\ntext | cell |\n\n## After\n"
    path.unlink()
    with pytest.raises(SaveError, match="has no model card"):
        write_proof(out, Proof("c", "1", "held"))


def test_what_is_not_installed_is_said(saved, monkeypatch, capsys):
    base, out = saved
    monkeypatch.setattr("surgery.verification.runtimes.find_spec", lambda name: None)
    with pytest.raises(SurgeryError, match=r"vllm is not installed.*pip install vllm"):
        find_runtime("vllm")
    verify = ["verify", str(out), str(base.source.home)]
    assert main.main([*verify, "--python", "/no/python", "--runtime", "vllm"]) == 1
    assert "There is no program /no/python" in capsys.readouterr().err
    assert main.main([*verify, "--python", sys.executable]) == 1
    assert "add --runtime" in capsys.readouterr().err
    assert main.main([*verify, "--runtime", "llama.cpp"]) == 1
    assert "are for GGUF files" in capsys.readouterr().err


def test_a_new_card_claims_nothing(saved):
    _, out = saved
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "None of these was tried" in text
    assert not any(word in text for word in ("Verified", "verified", "tested", "identical"))
