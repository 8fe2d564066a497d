"""Changes that libraries make to a model: refused on shared weights without any effect; possible on
a copy, without affecting other models."""

import copy

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from surgery import Base, Plan, Refused, SurgeryError

REPEATS = "0:4, 2:6"
LORA = dict(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
ATTEMPTS = {
    "half": lambda model, _: model.half(),
    "half within": lambda model, _: model.base_model.half(),
    "to a dtype": lambda model, _: model.to(torch.bfloat16),
    "to a device": lambda model, _: model.to("meta"),
    "to empty": lambda model, _: model.to_empty(device="cpu"),
    "train": lambda model, _: model.train(),
    "train within": lambda model, _: model.base_model.train(),
    "requires_grad_": lambda model, _: model.requires_grad_(),
    "load_state_dict": lambda model, _: model.load_state_dict(
        {name: tensor + 1 for name, tensor in model.state_dict().items()}
    ),
    "resize": lambda model, _: model.resize_token_embeddings(200),
    "embeddings": lambda model, _: model.set_input_embeddings(torch.nn.Embedding(200, 64)),
    "init_weights": lambda model, _: model.init_weights(),
    "apply": lambda model, _: model.apply(lambda m: torch.nn.init.zeros_(m.weight)),
    "save_pretrained": lambda model, place: model.save_pretrained(place / "out"),
    "pickle": lambda model, place: torch.save(model, place / "model.pt"),
    "copy.copy": lambda model, _: copy.copy(model).to(torch.float64),
    "peft": lambda model, _: get_peft_model(model, LoraConfig(**LORA)),
    "add_adapter": lambda model, _: model.add_adapter(LoraConfig(**LORA)),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base of this file's own, so that a failing test can't affect those of others."""
    folder = tmp_path_factory.mktemp("base")
    tiny.model("llama-tied-biased").save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return Base.open(str(folder))


def patient_of(base, text=REPEATS):
    return base.operate(Plan.parse(text, base.depth))


def logits(model):
    with torch.no_grad():
        return model(input_ids=tiny.tokens(16)).logits


@pytest.fixture(scope="module")
def everyone(base):
    """Models over the base's weights, and their initial state."""
    models = [base.model, patient_of(base).model, patient_of(base, "0:3, 5@identity").model]
    before = [
        (logits(m), {k: (v.clone(), v.dtype) for k, v in m.state_dict().items()}) for m in models
    ]

    def unchanged():
        for model, (message, state) in zip(models, before, strict=True):
            now = model.state_dict()
            assert now.keys() == state.keys() and not model.training
            assert all(
                torch.equal(now[k], v) and now[k].dtype == dtype for k, (v, dtype) in state.items()
            )
            assert torch.equal(logits(model), message)
            assert not any(p.requires_grad for p in model.parameters())

    return unchanged


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("whose", ["patient", "base"])
def test_what_would_change_shared_weights_is_refused(base, everyone, tmp_path, attempt, whose):
    model = base.model if whose == "base" else patient_of(base).model
    message = logits(model)
    with pytest.raises(Refused, match=r"patient\.copy\(\)"):
        ATTEMPTS[attempt](model, tmp_path)
    everyone()
    assert torch.equal(logits(model), message) and not (tmp_path / "out").exists()


def test_what_changes_nothing_goes_on_working(base, everyone):
    model = patient_of(base, "1, 1").model  # short, since compiling goes through every layer
    same = model.eval().to("cpu").to(torch.float32).float()
    same.tie_weights()  # as evaluation harnesses do
    assert same is model and type(model).__name__ == "LlamaForCausalLM"
    states = model(input_ids=tiny.tokens(8), output_hidden_states=True).hidden_states
    assert len(states) == 3
    ids = model.generate(tiny.tokens(4), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert ids.shape == (1, 7)
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(logits(compiled), logits(model))
    everyone()


@pytest.mark.parametrize("how", ["patient.copy", "copy.deepcopy"])
def test_a_copy_is_its_own_in_every_layer(base, everyone, how):
    patient = patient_of(base)
    model = patient.copy() if how == "patient.copy" else copy.deepcopy(patient.model)
    assert type(model) is type(tiny.model("llama-tied-biased"))
    assert torch.equal(logits(model), logits(patient.model))
    places = [p.data_ptr() for p in model.parameters()]
    assert len(set(places)) == len(places)
    assert not set(places) & {p.data_ptr() for p in base.model.parameters()}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.num_parameters() == base.preview(patient.plan).parameters
    layers = model.model.layers
    with torch.no_grad():
        layers[2].mlp.up_proj.weight.zero_()  # positions 2 and 4 are one layer of the base
    assert layers[4].mlp.up_proj.weight.any()
    model.train().half().resize_token_embeddings(200)
    everyone()


# Tied, with buffers and transposed weights, with experts, with a tower beside it.
@pytest.mark.parametrize("family", ["llama-tied-biased", "gpt2", "mixtral", "gemma3"])
def test_a_copy_is_written_and_loads_again(tiny_folder, tmp_path, family):
    patient = patient_of(Base.open(str(tiny_folder(family))))
    patient.copy().save_pretrained(tmp_path / "out")
    again, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values())
    assert torch.equal(logits(again), logits(patient.model))


def test_a_copy_takes_adapters_and_merges_them_layer_by_layer(base, everyone, tmp_path):
    patient = patient_of(base)
    torch.manual_seed(0)
    model = get_peft_model(patient.copy(), LoraConfig(**LORA))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    ids = tiny.tokens(16, batch=2)
    for _ in range(5):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    message = logits(model.eval())
    assert not torch.allclose(message, logits(patient.model), atol=0.1)
    merged = model.merge_and_unload()
    assert torch.allclose(logits(merged), message, atol=1e-4)
    merged.save_pretrained(tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.equal(logits(again), logits(merged))
    everyone()


def test_a_copy_without_room_is_refused_before_it_is_made(base, monkeypatch):
    patient = patient_of(base)
    monkeypatch.setattr("surgery.memory.shared_weights.free_on", lambda device: 100_000)
    monkeypatch.setattr(copy, "deepcopy", lambda *args: pytest.fail("copied"))
    with pytest.raises(SurgeryError, match=r"needs \d+ MB on cpu, and 0 MB are free"):
        patient.copy()
