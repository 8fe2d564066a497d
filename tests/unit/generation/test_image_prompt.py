"""An image in the prompt: the same tokens as transformers' own processor and `generate` give."""

import json
import shutil

import pytest
import tiny
import tiny_gemma3
import tiny_llava
import torch
from PIL import Image
from transformers import AutoProcessor
from transformers.utils import import_utils
from zoo import multimodal
from zoo.images import image_inputs

from surgery import Base, Plan, SurgeryError
from surgery.generation import image_prompt
from surgery.generation.image_stream import ImageStream

GREEDY = dict(greedy=True, max_new_tokens=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("llava") / "base"
    tiny_llava.save(made)
    return made


@pytest.fixture(scope="module")
def base(folder):
    return Base.open(str(folder))


@pytest.fixture
def image(tmp_path):
    return tiny_llava.picture(tmp_path / "fade.png")


def generated(base, model, inputs):
    """The tokens that transformers' own loop adds."""
    ends = base.model.generation_config.eos_token_id
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=8, pad_token_id=0)
    new = ids[0, inputs["input_ids"].shape[1] :].tolist()
    return new[: new.index(ends)] if ends in new else new


@pytest.mark.parametrize("plan", ["0:6", "0:2, 4:6", "0:4, 2:6"])
@pytest.mark.parametrize("chat", [False, True])
def test_a_stream_gives_what_generate_gives(base, image, plan, chat):
    patient = base.operate(Plan.parse(plan, 6))
    text = "<image>What is this?" + " A:" * chat
    inputs = base.processor(text=[text], images=[Image.open(image)], return_tensors="pt")
    stream = patient.stream("What is this?", image=image, chat=chat, **GREEDY)
    list(stream)
    assert list(stream.prompt_ids) == inputs["input_ids"][0].tolist()
    assert stream.prompt_ids.count(base.model.config.image_token_index) == tiny_llava.FEATURES
    assert stream.ids == generated(base, patient.again().model, inputs)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    made = tmp_path_factory.mktemp("gemma") / "base"
    tiny_gemma3.save(made)
    return Base.open(str(made))


@pytest.mark.parametrize("plan", ["0:6", "0:2, 3:6", "0:4, 2:6"])
def test_a_class_that_is_among_the_causal_ones_takes_images(gemma, image, plan):
    """Gemma 3's is in the mapping of causal models and in the multimodal one; its image has one
    token in the prompt, and others in what the model is given, which attends to it from both
    sides."""
    assert gemma.takes_images and gemma.auto_class == "AutoModelForCausalLM"
    patient = gemma.operate(Plan.parse(plan, 6))
    text = "<start_of_image>What is this?"
    inputs = gemma.processor(text=[text], images=[Image.open(image)], return_tensors="pt")
    stream = patient.stream("What is this?", image=image, **GREEDY)
    list(stream)
    assert list(stream.prompt_ids) == inputs["input_ids"][0].tolist()
    assert stream.prompt_ids.count(gemma.model.config.image_token_id) == 4
    assert stream.ids == generated(gemma, patient.again().model, inputs)


def test_a_token_around_images_does_not_stand_for_one(folder):
    """Gemma 4's processor has a `boi_token`, too, which it puts around the image's own."""
    processor = AutoProcessor.from_pretrained(folder)
    processor.boi_token = "</s>"
    inputs = image_prompt.image_inputs(processor, "Look", Image.new("RGB", (40, 30)), chat=False)
    marked = processor.image_token_id, processor.tokenizer.convert_tokens_to_ids("</s>")
    ids = inputs["input_ids"][0].tolist()
    assert [ids.count(one) for one in marked] == [tiny_llava.FEATURES, 0]


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "mllama", "smolvlm"])
def test_families_that_place_images_their_own_way(tmp_path, model_type):
    """Positions in three dimensions, cross-attention, fewer tokens than patches."""
    made = multimodal.model(model_type)
    inputs = image_inputs(made)
    made.save_pretrained(tmp_path / "base")
    base = Base.open(str(tmp_path / "base"))
    base.load()
    patient = base.operate(Plan.parse("0:5", 6))
    expected = generated(base, patient.again().model, inputs)
    settings = dict(max_new_tokens=8, seed=0, temperature=1.0, top_p=1.0, greedy=True)
    stream = ImageStream(patient.again().model, tiny.tokenizer(), inputs, **settings)
    list(stream)
    assert stream.ids == expected


def test_two_streams_at_once_do_not_mix(base, image, tmp_path):
    other = tiny_llava.picture(tmp_path / "other.png", seed=1)
    patient = base.operate(Plan.whole(6))
    alone = []
    for file in (image, other):
        stream = patient.stream("a", image=file, **GREEDY)
        list(stream)
        alone.append(stream.ids)
    together = [patient.stream("a", image=file, **GREEDY) for file in (image, other)]
    for _ in range(8):
        for stream in together:
            next(stream, None)
    assert [stream.ids for stream in together] == alone


def test_a_saved_patient_takes_images_too(base, image, tmp_path):
    plan = Plan.parse("0:3, 4:6", 6)
    out = base.save(plan, tmp_path / "out")
    assert json.loads((out / "processor_config.json").read_text())
    again = Base.open(str(out))
    streams = [
        base.operate(plan).stream("Look", image=image, **GREEDY),
        again.operate(Plan.whole(5)).stream("Look", image=image, **GREEDY),
    ]
    for stream in streams:
        list(stream)
    assert again.takes_images and streams[0].ids == streams[1].ids


def test_bases_without_images_say_so(base, folder, tiny_folder, image, tmp_path):
    text_only = Base.open(str(tiny_folder("llama")))
    assert base.takes_images and not text_only.takes_images
    assert not base.why_no_images and not text_only.why_no_images
    with pytest.raises(SurgeryError, match="takes no images"):
        text_only.operate(Plan.whole(6)).stream("a", image=image)
    blind = shutil.copytree(folder, tmp_path / "blind")
    for path in blind.glob("*processor_config.json"):
        path.write_text("{")
    assert not Base.open(str(blind)).takes_images
    with pytest.raises(
        SurgeryError, match="blind takes no images here: its processor can't be used"
    ):
        Base.open(str(blind)).processor  # noqa: B018  it raises


def test_a_missing_package_for_images_is_named(folder, tmp_path, image, monkeypatch):
    """Where the processor needs torchvision, the message says so; text goes on without it."""

    def fails(*args, **kwargs):
        raise ImportError(import_utils.TORCHVISION_IMPORT_ERROR.format("A processor"))

    shutil.copytree(folder, tmp_path / "base")
    monkeypatch.setattr(image_prompt.AutoProcessor, "from_pretrained", fails)
    base = Base.open(str(tmp_path / "base"))
    assert not base.takes_images and "pip install torchvision" in base.why_no_images
    patient = base.operate(Plan.parse("0:2, 4:6", 6))
    with pytest.raises(SurgeryError, match="pip install torchvision"):
        patient.stream("Look", image=image, **GREEDY)
    stream = patient.stream("Look", **GREEDY)
    list(stream)
    assert stream.ids == generated(base, patient.model, base.tokenizer("Look", return_tensors="pt"))


def test_bad_images_get_a_message(base, tmp_path):
    patient = base.operate(Plan.whole(6))
    text, half, wide = (tmp_path / name for name in ("text.png", "half.png", "wide.png"))
    text.write_text("no image")
    whole = tiny_llava.picture(tmp_path / "whole.png").read_bytes()
    half.write_bytes(whole[: len(whole) // 2])
    Image.new("1", (10_000, 6_000)).save(wide)
    for file, message in (
        (text, "not an image"),
        (half, "can't be read as an image"),
        (wide, "10,000 × 6,000 pixels"),
        (tmp_path / "none.png", "can't be read as an image"),
    ):
        with pytest.raises(SurgeryError, match=message):
            patient.stream("a", image=file)


def test_a_prompt_that_is_too_long_with_its_image(base, image):
    with pytest.raises(SurgeryError, match="context holds 256"):
        base.operate(Plan.whole(6)).stream("a" * 250, image=image, **GREEDY)


def test_an_image_that_does_not_belong_to_the_model(base):
    """A processor of another model: the message says what transformers says."""
    ids = torch.tensor([[1, base.model.config.image_token_index, 40]])
    inputs = {"input_ids": ids, "pixel_values": torch.zeros(1, 3, 28, 28)}
    settings = dict(max_new_tokens=2, seed=0, temperature=1.0, top_p=1.0, greedy=True)
    stream = ImageStream(base.operate(Plan.whole(6)).model, base.tokenizer, inputs, **settings)
    with pytest.raises(SurgeryError, match=r"can't take this image: .*tokens: 1"):
        next(stream)
