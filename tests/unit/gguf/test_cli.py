"""`save` and `verify` of GGUF files on the command line; what is llama.cpp's is played."""

import json
import sys

import pytest
import tiny
import tiny_gguf
import torch

from surgery import Base, Plan, SaveError, SurgeryError
from surgery.cli.main import main
from surgery.gguf.llama_cpp import find_llama_cpp
from surgery.progress import silent
from surgery.verification.llama_cpp import Agreement, compare, verify_runtime

# Reads what would be asked of llama-cpp-python, and answers from a file.
PACKAGE = """
import json, os
__version__ = "0"
class Llama:
    def __init__(self, model_path, **options):
        assert options["n_gpu_layers"] == 0, options
        self.texts = json.load(open(os.environ["ANSWERS"]))
    def token_eos(self):
        return 2
    def generate(self, ids, **options):
        assert options["top_k"] == 1 and options["temp"] == 0.0
        yield from self.texts[str(len(ids))]
"""
CONVERTER = """
import pathlib, sys
folder, flag, out = sys.argv[1:]
assert flag == "--outfile" and (pathlib.Path(folder) / "model.safetensors").is_file()
print("converting", folder)
{do}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LLAMA_CPP", raising=False)


@pytest.fixture
def file(tmp_path):
    return tiny_gguf.write(tmp_path / "base.gguf")


def test_save_and_verify(file, capsys):
    out = file.with_name("out.gguf")
    assert main(["save", str(file), "drop-middle n=2", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == {str(out): out.stat().st_size}
    assert main(["verify", str(out)]) == 0
    assert "39 tensors" in capsys.readouterr().out
    assert main(["save", str(file), "0:3", str(out), "--overwrite", "--shard-size", "50KB"]) == 0
    first = file.with_name("out-00001-of-00003.gguf")
    assert f"{first} and 2 more files: 3 layers" in capsys.readouterr().out
    assert main(["verify", str(first), str(file)]) == 0


def test_recipes_without_scales(file, capsys):
    recipe = file.with_name("recipe.yaml")
    slices = "slices: [{sources: [{model: x, layer_range: [1, 5]%s}]}]\nmerge_method: passthrough\n"
    recipe.write_text(slices % "")
    out = file.with_name("out.gguf")
    assert main(["save", str(file), f"@{recipe}", str(out)]) == 0
    assert tiny_gguf.metadata(out)["layer_surgery.plan"] == "1:5"
    recipe.write_text(slices % ", parameters: {scale: 0.5}")
    assert main(["save", str(file), f"@{recipe}", str(file.with_name("b.gguf"))]) == 1
    assert "write the plan out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "float16"], "tensors are only copied"),
        (["--with", "b=bundled"], "from one base"),
        (["--shard-size", "many"], "not a shard size"),
    ],
)
def test_options_that_do_not_apply(file, capsys, arguments, message):
    assert main(["save", str(file), "0:4", str(file.with_name("o.gguf")), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_verify_options_that_do_not_apply(file, tiny_folder, capsys):
    assert main(["verify", str(tiny_folder("llama")), "--runtime", "llama.cpp"]) == 1
    assert "are for GGUF files" in capsys.readouterr().err
    assert main(["verify", str(file), "--llama-cpp", "/no/such/program"]) == 1
    assert "There is no program" in capsys.readouterr().err


# ------------------------------------------------------------------ llama.cpp's converter


@pytest.mark.parametrize("option", [[], ["--unverified"]])
def test_what_is_converted_is_verified_unless_it_is_not_wanted(
    tiny_folder, tmp_path, monkeypatch, option
):
    seen = []

    def save(base, plan, folder, *, verified, **more):
        seen.append(verified)
        raise SaveError("enough")

    monkeypatch.setattr(Base, "save", save)
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text("")
    words = ["save", str(tiny_folder("llama")), "0:4", str(tmp_path / "out.gguf"), *option]
    assert main([*words, "--converter", str(script)]) == 1
    assert seen == [not option]


def test_another_base_takes_the_converter(tiny_folder, tmp_path, capsys):
    base, out = str(tiny_folder("llama")), tmp_path / "out.gguf"
    assert main(["save", base, "0:4", str(out)]) == 1
    said = capsys.readouterr().err
    assert f"python -m surgery save {base} 0:4 {tmp_path / 'out'} && " in said
    assert f"python convert_hf_to_gguf.py {tmp_path / 'out'} --outfile {out}" in said
    assert main(["save", base, "0:4", str(out), "--shard-size", "1GB"]) == 1
    assert "leave out --shard-size" in capsys.readouterr().err
    assert main(["save", base, "0:4", str(out), "--converter", str(tmp_path)]) == 1
    assert "There is no file" in capsys.readouterr().err
    made = tiny_gguf.write(tmp_path / "made.gguf", depth=4)
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text(
        CONVERTER.format(do=f"pathlib.Path(out).write_bytes(open({str(made)!r}, 'rb').read())")
    )
    assert main(["save", base, "0:4", str(out), "--converter", str(tmp_path)]) == 0
    assert str(script) in capsys.readouterr().err
    assert out.read_bytes() == made.read_bytes()
    out.unlink()
    for do, problem in (
        ("sys.exit('no such architecture')", "failed: converting"),
        ("", "ended without writing"),
        (f"pathlib.Path(out).write_bytes(open({str(made)!r}, 'rb').read()[:99])", "cut off"),
    ):
        script.write_text(CONVERTER.format(do=do))
        assert main(["save", base, "0:4", str(out), "--converter", str(script)]) == 1
        assert problem in capsys.readouterr().err
    assert main(["save", base, "0:3", str(out), "--converter", str(script)]) == 1
    left = {path.name for path in tmp_path.iterdir()} - {"cache"}
    assert left == {"made.gguf", "convert_hf_to_gguf.py"}


# ------------------------------------------------------------------ running llama.cpp


def test_a_file_is_run_and_compared_with_the_patient(file, monkeypatch, capsys):
    """The stand-in answers with the patient's own tokens, then with another model's."""
    folder, out = file.parent, file.with_name("out.gguf")
    plan = Plan.parse("0:2, 3:6, 1", 6)
    assert main(["save", str(file), str(plan), str(out)]) == 0
    (folder / "llama_cpp").mkdir()
    (folder / "llama_cpp" / "__init__.py").write_text(PACKAGE)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("ANSWERS", str(folder / "answers.json"))
    monkeypatch.setattr("surgery.verification.llama_cpp.TEXTS", ("ab", "abc"))
    base = Base.open(str(file))

    def answer(model):
        texts = {}
        for text in ("ab", "abc"):
            ids = base.tokenizer(text).input_ids
            made = model.generate(
                torch.tensor([ids]), max_new_tokens=9, do_sample=False, eos_token_id=None
            )
            texts[len(ids)] = made[0, len(ids) :].tolist()
        (folder / "answers.json").write_text(json.dumps(texts))

    with torch.no_grad():
        answer(base.operate(plan).model)
    python = find_llama_cpp(type(folder)(sys.executable))
    found = verify_runtime(out, None, python, silent)
    assert found.holds and found.tokens > 12 and found.equal > found.tokens / 2
    assert main(["verify", str(out), "--llama-cpp", sys.executable]) == 0
    assert "llama-cpp-python: " in capsys.readouterr().out
    assert main(["verify", str(out), "--llama-cpp", sys.executable, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["saved"] == str(out) and facts["tensors"] > 9
    (run,) = facts["runs"]
    assert (run["program"], run["version"], run["dtype"]) == ("llama.cpp", "0", None)
    assert (run["tokens"], run["equal"]) == (found.tokens, found.equal)
    with torch.no_grad():
        answer(base.operate(Plan.parse("0:2, 5, 3, 4, 1", 6)).model)
    with pytest.raises(SaveError, match="computes another model"):
        verify_runtime(out, None, python, silent)
    (folder / "llama_cpp" / "__init__.py").write_text("raise SystemExit('no such tensor')")
    with pytest.raises(SaveError, match="does not run the file: no such tensor"):
        verify_runtime(out, None, python, silent)


def test_the_distance_of_tokens_from_the_own_choice():
    model = tiny.model("llama")
    prompt = tuple(tiny.tokens()[0, :5].tolist())
    with torch.no_grad():
        own = model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False)
        logits = model(input_ids=own).logits[0].float().log_softmax(-1)
    made = tuple(own[0, 5:].tolist())
    assert compare(model, [(prompt, made)]) == Agreement(6, 6, 0.0, 0.0)
    worst = int(logits[-2].argmin())
    found = compare(model, [(prompt, (*made[:-1], worst))])
    expected = float(logits[-2].max() - logits[-2].min())
    assert found.equal == 5 and found.largest == pytest.approx(expected, abs=1e-4)
    assert found.mean == pytest.approx(expected / 6, abs=1e-4)
    with pytest.raises(SaveError, match="None of the texts"):
        compare(model, [(prompt, ())])


def test_without_llama_cpp_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr("surgery.gguf.llama_cpp.find_spec", lambda name: None)
    with pytest.raises(SurgeryError, match="pip install llama-cpp-python"):
        find_llama_cpp(None)
