"""Recipes: what is written is read back as the same plan; what can't be done is refused by name."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from surgery import Base, Init, Layer, Plan, PlanError, Refused, SurgeryError
from surgery.facts import read_recipe
from surgery.initialisers import Block
from surgery.recipes.export import of_base, to_peft, to_python, to_yaml
from surgery.recipes.merge_methods import MERGES
from surgery.recipes.recipe import layer_tensors, read, read_file

LLAMA = [
    ("input_layernorm.weight", None),
    ("self_attn.q_proj.weight", None),
    ("self_attn.o_proj.weight", Block.ATTENTION),
    ("mlp.down_proj.weight", Block.MLP),
]
OUTPUTS = {Block.ATTENTION: ["o_proj"], Block.MLP: ["down_proj"]}
inits = st.one_of(
    st.just(Init()),
    *(st.just(Init(name)) for name in ("identity", "no-attention", "no-mlp")),
    st.floats(-4, 4).filter(lambda f: f not in (0, 1)).map(lambda f: Init("scale", f)),
)
plans = st.lists(st.builds(Layer, st.integers(0, 11), inits), min_size=1, max_size=40).map(
    lambda layers: Plan(tuple(layers), 12)
)


@given(plans, st.sampled_from([None, "bfloat16"]))
def test_what_is_written_is_read_back(plan, dtype):
    recipe = read(to_yaml("org/name", plan, dtype, OUTPUTS))
    assert recipe.plan(12, LLAMA) == plan
    assert (recipe.model, recipe.saved_dtype) == ("org/name", dtype)


@pytest.mark.parametrize("family", ["llama-tied-biased", "mixtral", "gemma3", "gpt2"])
def test_of_real_bases(tiny_folder, family):
    base = Base.open(str(tiny_folder(family)))
    plan = Plan.parse("0:3, 2@identity, 3@no-attention, 4@no-mlp, 5, 1", base.depth)
    assert read(of_base(base, plan, "x", None)).plan(base.depth, layer_tensors(base)) == plan


def test_the_recipe_of_the_documentation():
    """LLaMA-Pro's extra layer, as mergekit's users write it, in its other spellings too."""
    text = """
    slices:
      - sources: [{model: org/name, layer_range: [0, 12]}]
      - sources:
          - model: org/name
            layer_range: [11, 12]
            parameters:
              scale:
                - {filter: o_proj, value: 0.0}
                - {filter: down_proj, value: 0.0}
                - {value: 1.0}
    merge_method: passthrough
    tokenizer_source: base
    dtype: bfloat16
    """
    recipe = read(text)
    assert str(recipe.plan(12, LLAMA)) == "0:12, 11@identity"
    assert recipe.saved_dtype == "bfloat16"
    everywhere = """
    slices: [{sources: [{model: m, layer_range: [0, 2]}]}]
    parameters: {scale: [{filter: o_proj, value: 2}, {filter: down_proj, value: 2.0}]}
    """
    assert str(read(everywhere).plan(12, LLAMA)) == "0:2@scale=2.0"


def test_a_filter_may_begin_with_the_dot_behind_the_layer_s_number():
    scale = [{"filter": ".mlp.down_proj", "value": 0}, {"filter": ".self_attn.o", "value": 0}]
    assert str(read(scaled(scale)).plan(12, LLAMA)) == "0:2@identity"


def sources(*ranges, **more):
    slices = [{"sources": [{"model": "m", "layer_range": list(r)}]} for r in ranges]
    return yaml.safe_dump({"slices": slices, "merge_method": "passthrough", **more})


def scaled(scale):
    return sources([0, 2], parameters={"scale": scale})


def levels(parameters, slice_=None, source=None, **more):
    """A recipe with parameters at top level, in its slice, and in the slice's source."""
    fields = yaml.safe_load(sources([0, 2], parameters=parameters, **more))
    (part,) = fields["slices"]
    part["parameters"] = slice_ or {}
    part["sources"][0]["parameters"] = source or {}
    return yaml.safe_dump(fields)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (levels({"int8_mask": True, "normalize": False}), ["int8_mask", "normalize"]),
        (levels({}, {"weight": 0.5, "lambda": 1.0}), ["weight", "lambda"]),
        (levels({}, {}, {"density": [0.1, 0.9], "rescale": True}), ["density", "rescale"]),
        (levels({"t": [{"filter": "mlp", "value": 0.5}]}, {"t": 1}, {"gamma": 0}), ["t", "gamma"]),
        (sources([0, 2], tokenizer_source="union"), ["tokenizer_source"]),
        (sources([0, 2], chat_template="auto"), ["chat_template"]),
    ],
)
def test_what_does_nothing_in_passthrough_is_read_and_named(text, named):
    recipe = read(text)
    assert str(recipe.plan(12, LLAMA)) == "0:2"
    (note,) = recipe.notes
    assert note.startswith("Ignored") and all(name in note for name in named)


def test_what_does_something_is_no_note():
    scale = {"scale": [{"filter": "o_proj", "value": 0}, {"filter": "down_proj", "value": 0}]}
    recipe = read(levels({"normalize": True}, {"weight": 1}, scale, dtype="float16"))
    assert str(recipe.plan(12, LLAMA)) == "0:2@identity" and recipe.saved_dtype == "float16"
    assert recipe.notes == (
        "Ignored in the recipe, with no effect in passthrough merges: normalize, weight.",
    )
    assert not read(sources([0, 2], dtype="bfloat16")).notes


@pytest.mark.parametrize(
    ("more", "saved"),
    [
        ({"dtype": "torch.bfloat16"}, "bfloat16"),
        ({"dtype": "float32", "out_dtype": "float16"}, "float16"),
        ({"dtype": "float16", "out_dtype": "float16"}, "float16"),
        ({"out_dtype": "float32"}, "float32"),
        ({}, None),
    ],
)
def test_dtypes_are_followed(more, saved):
    assert read(sources([0, 2], **more)).saved_dtype == saved


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a mergekit recipe"),
        (sources([0, 2], dtype="bfloat"), "dtype.*“bfloat” is not a supported dtype"),
        (sources([0, 2], out_dtype="int8"), "out_dtype.*“int8” is not a supported dtype"),
        (sources([0, 2], dtype="auto"), "“auto” is not a supported dtype"),
        (sources([0, 2], dtype="bfloat16", out_dtype="float32"), "rounds them twice"),
        (levels({"scal": 0.5}), "“scal” is not a known mergekit parameter"),
        (levels({}, {}, {"residual_weight": 0.5}), "“residual_weight” is not a known"),
        ("0:12", "not a mergekit recipe"),
        ("{", "valid YAML"),
        ("a: \0", "valid YAML"),
        ("merge_method: [1]", "one name"),
        ("merge_method: TIES", "“TIES” is unknown.*mean ties?"),
        ("merge_method: frobnicate", "“frobnicate” is unknown: mergekit.*none of that name"),
        ("models: []", "`models`"),
        ("modules: {}", "`modules`"),
        ("slices: []", "slices"),
        ("slices: 3", "slices"),
        ("slices: [{sources: []}]", "sources"),
        (sources([0, 2], chat_template="x"), "`chat_template`"),
        (sources([0, 2], tokenizer={"source": "base"}), "`tokenizer`"),
        (sources([0, 2], tokenizer_source="other"), "tokenizer_source other"),
        (sources([0, 2], base_model="other"), "base_model other"),
        (sources([0, 2], surprise=1), "surprise"),
        (sources([3, 1]), "runs backwards"),
        (sources([1, 1]), "is empty"),
        (sources([-1, 1]), "leaves the base"),
        (sources([0, 13]), r"slice 0.*layers 0 to 11"),
        (sources([0, 2], [0, 10**30]), "slice 1"),
        (sources(["0", 2]), "valid integer"),
        (sources([0, 2, 3]), "layer_range"),
        (scaled(0.5), "other tensors than a layer's output projections"),
        (scaled([{"filter": "o_proj", "value": 0.5}]), "different factors"),
        (scaled([{"filter": "q_proj", "value": 0.5}]), "other tensors"),
        (scaled([{"filter": "layers.3.mlp.down_proj", "value": 0}]), "filter “layers.3.mlp.down"),
        (scaled([{"filter": "model.layers", "value": 0.5}]), "filter “model.layers”"),
        (scaled([{"filter": "lm_head", "value": 2}]), "filter “lm_head”"),
        # Not without effect: in mergekit the first filter that fits counts.
        (
            scaled([{"filter": "model", "value": 1}, {"filter": "o_proj", "value": 0}]),
            "filter “model”",
        ),
        (levels({}, {"scale": [{"filter": "no_such", "value": 0}]}), "filter “no_such”"),
        (scaled([{"value": float("nan")}]), "not a finite number"),
        (scaled([0.1, 0.5]), "scale"),
        (scaled("1"), "scale"),
        (
            sources([0, 1]) + "\nbase_model: !!python/object/apply:os.system [true]",
            "valid YAML",
        ),
        ("a: &a [1]\nb: [*a, *a]", "aliases"),
        ("[" * 100_000, "nested too deeply"),
        ("slices: " + "[" * 20 + "]" * 20, "nested too deeply"),
        ("#" * (3 << 20), "longer than 2 MB"),
    ],
)
def test_what_is_not_done_is_said(text, message):
    with pytest.raises(SurgeryError, match=f"(?is){message}") as caught:
        read(text).plan(12, LLAMA)
    assert isinstance(caught.value, (PlanError, Refused)) and len(str(caught.value)) < 500


def test_an_adapter_has_to_be_named_with_the_base(tmp_path):
    fields = "slices: [{{sources: [{{model: '{}', layer_range: [0, 1]}}]}}]"
    recipe = read(fields.format("org/a+org/b"))
    recipe.check_adapters({"": True})
    with pytest.raises(Refused, match=r"applies an adapter \(org/a\+org/b\).*BASE\+ADAPTER"):
        recipe.check_adapters({"": False})
    (tmp_path / "c++").mkdir()
    read(fields.format(tmp_path / "c++")).check_adapters({"": False})


@pytest.mark.parametrize("method", MERGES)
def test_merges_are_mergekits(method, tmp_path):
    """Also where the recipe has other keys that are refused, or a name that a shell would split."""
    path = tmp_path / "my merge.yml"
    path.write_text(f"models: [{{model: a}}, {{model: b}}]\nmerge_method: {method}\n")
    with pytest.raises(Refused) as caught:
        read_file(path)
    assert f"merge_method {method} computes new weights" in str(caught.value)
    assert f"`mergekit-yaml '{path}' OUT`" in str(caught.value)
    assert "`python -m surgery inspect OUT`" in str(caught.value)
    with pytest.raises(Refused, match=r"`mergekit-yaml RECIPE\.yml OUT`"):
        read_recipe(f"{{merge_method: {method}, models: []}}")  # as endpoints get it, in one line


def test_a_file_name_is_no_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-v.yml").write_text("merge_method: slerp")
    with pytest.raises(Refused, match=r"`mergekit-yaml \./-v\.yml OUT`"):
        read_file(Path("-v.yml"))


def test_what_mergekit_writes_is_a_base(tiny_folder, tmp_path):
    """A folder as mergekit 0.1.5 writes it opens, and its recipe is not taken for one of ours."""
    made = tmp_path / "OUT"
    model = AutoModelForCausalLM.from_pretrained(tiny_folder("llama"))
    model.save_pretrained(made, max_shard_size="200KB")
    assert len(list(made.glob("model-*-of-*.safetensors"))) > 2
    (made / "mergekit_config.yml").write_text("models: []\nmerge_method: slerp\n")
    (made / "README.md").write_text(
        "---\nbase_model: []\ntags:\n- mergekit\n- merge\n\n---\n# OUT\n"
    )
    base = Base.open(str(made))
    assert base.depth == 6 and base.counts.total == sum(p.numel() for p in model.parameters())
    saved = base.save(Plan.parse("0:2, 4:6", 6), tmp_path / "cut")
    assert not (saved / "mergekit_config.yml").exists()
    assert "0:2, 4:6" in (saved / "README.md").read_text()


def test_several_models():
    fields = yaml.safe_load(sources([0, 2]))
    for name, span in (("n", [2, 4]), ("m", [3, 4]), ("o", [0, 1])):
        fields["slices"].append({"sources": [{"model": name, "layer_range": span}]})
    recipe = read(yaml.safe_dump(fields))
    assert recipe.names == {"m": "", "n": "b", "o": "c"}
    plan = recipe.plan(6, LLAMA, {"b": 4, "c": 4})
    assert plan == Plan.parse("0:2, b/2:4, 3, c/0", 6, {"b": 4, "c": 4})
    with pytest.raises(PlanError, match=r"\[2, 4\].*layers 0 to 2"):
        recipe.plan(6, LLAMA, {"b": 3, "c": 4})
    with pytest.raises(PlanError, match="layers of o, not given"):
        recipe.plan(6, LLAMA, {"b": 4})
    fields["slices"] = [{"sources": [{"model": f"m{i}", "layer_range": [0, 1]}]} for i in range(27)]
    with pytest.raises(Refused, match="27 models"):
        read(yaml.safe_dump(fields))


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_an_error_of_ours(text):
    try:
        assert read(text).slices
    except SurgeryError as error:
        assert str(error)


def test_what_no_recipe_can_say():
    with pytest.raises(Refused, match="can't express random"):
        to_yaml("m", Plan.parse("0@random", 4), None, {})
    with pytest.raises(Refused, match="can't express b"):
        to_yaml("m", Plan.parse("b/0", 4, {"b": 4}), None, {})
    with pytest.raises(Refused, match="2@identity"):
        to_peft(Plan.parse("0:3, 2@identity", 4))
    with pytest.raises(Refused, match="one base's layers as they are, not b/2@copy"):
        to_peft(Plan.parse("0:3, b/2:4", 4, {"b": 4}))


def test_peft_gets_the_ranges():
    ranges = json.loads(to_peft(Plan.parse("0:24, 8:32", 32)))
    assert ranges == {"layer_replication": [[0, 24], [8, 32]]}


def test_the_python_does_it(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(to_python(str(tiny_folder("llama")), Plan.parse("0:2, 4:6", 6)), {})
    assert Base.open("out/").depth == 4


def test_the_python_of_several_bases_and_of_a_recipe_s_dtype():
    plan = Plan.parse("0:2, b/1:3", 4, {"b": 4, "unused": 9})
    specs = {"b": "org/b", "unused": "org/unused"}
    assert to_python("org/a", plan, specs, dtype="float16") == (
        "from surgery import Base, Plan, stack\n\n"
        "base = Base.open('org/a')\n"
        "others = {'b': Base.open('org/b')}\n"
        "plan = Plan.parse('0:2, b/1:3', base.depth, "
        "{name: other.depth for name, other in others.items()})\n"
        "base, plan = stack(base, others, plan)\n"
        "base.save(plan, \"out/\", dtype='float16')\n"
    )
    assert to_python("org/a", plan, specs, union=True).count("stack_united") == 2
