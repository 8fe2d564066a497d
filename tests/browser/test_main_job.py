"""The main job, end to end, on the real model: open, cut, hear, save, and load what was saved."""

import re
import zipfile

import torch
from greedy import agrees
from hands import depth, drag, layers, order, plan_box, select, selected, tile_text
from playwright.sync_api import Page, expect
from transformers import AutoModelForCausalLM, AutoTokenizer

from surgery import Plan

WITHOUT = [i for i in range(30) if not 13 <= i < 17]
PARAMETERS = 120_354_624


def choose_length(page: Page, tokens: int) -> None:
    """Have texts of at most so many tokens."""
    page.locator(".talk-settings button").first.click()
    length = page.get_by_label("number input for Length")
    length.fill(str(tokens))
    length.press("Enter")


def test_cut_undo_redo_hear_save_and_load(page, bundled, tmp_path):
    depth(page, 30)
    drag(page, layers(page, "patient").nth(13), layers(page, "patient").nth(16))
    expect(selected(page)).to_have_count(4)
    page.keyboard.press("Delete")
    depth(page, 26)
    assert order(page) == WITHOUT
    expect(plan_box(page)).to_have_value("0:13, 17:30")
    assert f"{PARAMETERS:,}" in tile_text(page, "Parameters")
    assert "26" in tile_text(page, "Layers")
    expect(page.locator("[data-strip=base] .layer.gone")).to_have_count(4)

    page.get_by_role("button", name="Undo").click()
    depth(page, 30)
    expect(plan_box(page)).to_have_value("0:30")
    page.get_by_role("button", name="Redo").click()
    depth(page, 26)

    page.locator("#prompt textarea").fill("The capital of France is")
    choose_length(page, 24)
    page.locator("#stream").click()
    message = {who: page.locator(f"[data-who={who}] .talk-said") for who in ("base", "patient")}
    expect(message["base"]).to_contain_text("Paris", timeout=120_000)
    figures = page.locator("[data-who=patient] output")
    expect(figures).to_have_text(
        re.compile(r"\d+ tokens · [\d.]+ tokens/s · first after [\d.]+ s"), timeout=120_000
    )
    expect(page.locator(".talk-caret")).to_have_count(0, timeout=120_000)
    for who, text in (("base", "0:30"), ("patient", "0:13, 17:30")):
        patient = bundled.operate(Plan.parse(text, 30))
        stream = patient.stream("The capital of France is", max_new_tokens=24, greedy=True)
        list(stream)
        shown = message[who].evaluate("node => node.textContent")
        assert agrees(patient, "The capital of France is", shown, stream.ids)

    page.get_by_role("tab", name="Save").click()
    page.get_by_label("Name").fill("cut")
    page.locator("#save").click()
    with page.expect_download(timeout=120_000) as download:
        page.locator("#download a").click(timeout=120_000)
    assert download.value.suggested_filename == "cut.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path)

    model, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "cut", dtype=torch.bfloat16, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "cut")
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    patient = bundled.operate(Plan.parse("0:13, 17:30", 30)).model
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, patient(input_ids=ids).logits)


def test_a_stream_stops_when_asked_and_it_saves_into_a_folder_of_this_machine(page, app_folder):
    page.locator("#prompt textarea").fill("Once upon a time there was a little robot who")
    choose_length(page, 512)
    page.locator("#stream").click()
    message = page.locator("[data-who=patient] .talk-said")
    expect(message).to_have_text(re.compile(r"\w"), timeout=120_000)
    page.locator("#stop").click()
    expect(page.locator(".talk-caret")).to_have_count(0)
    expect(page.locator("#talk-status p")).to_have_text("Stopped.")
    before = message.inner_text()
    page.wait_for_timeout(1500)
    assert message.inner_text() == before

    select(page, 0, 25)
    page.keyboard.press("Delete")
    depth(page, 4)
    page.get_by_role("tab", name="Save").click()
    page.get_by_label("Name").fill("../../four layers")
    page.get_by_label("a folder on this machine").check()
    page.locator("#save").click()
    expect(page.locator("#save-status p")).to_contain_text("Saved to", timeout=120_000)
    out = app_folder / "patients" / "four-layers"
    assert AutoModelForCausalLM.from_pretrained(out).config.num_hidden_layers == 4
    page.locator("#save").click()
    expect(page.locator("#save-status p")).to_contain_text("exists already")
