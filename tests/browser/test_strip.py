"""The strip under hands and keys: selecting, dragging, the notation, presets, many layers."""

import json
import re
from itertools import product

import pytest
from hands import depth, drag, faults, layers, order, plan_box, select, selected, write_plan
from one_page import one_page
from playwright.sync_api import expect

ALL = list(range(30))
STRIPS = ("base", "patient")


@pytest.fixture
def page(opened):
    """The page of all tests here, as it was opened."""
    yield from opened.visit()


@pytest.fixture(scope="module")
def opened_phone(app, tabs):
    with one_page(tabs, app, 390, 844, phone=True) as one:
        yield one


@pytest.fixture
def phone(opened_phone):
    """The page on a phone."""
    yield from opened_phone.visit()


@pytest.fixture
def bare_page(opened, configs, count):
    """The page on a bare config with `count` layers."""
    yield from opened.visit(configs(count), count)


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """A function: the spec of a bare config of a Llama with so many layers."""

    def made(count: int) -> str:
        path = tmp_path_factory.mktemp("config") / f"llama-{count}.json"
        fields = dict(model_type="llama", num_hidden_layers=count, vocab_size=512)
        path.write_text(json.dumps(fields | dict(hidden_size=64, num_attention_heads=4)))
        return f"config:{path}"

    return made


def test_a_selection_is_dragged_to_move_it(page):
    select(page, 2, 4)
    drag(page, layers(page, "patient").nth(3), layers(page, "patient").nth(10), 0.9)
    expect(plan_box(page)).to_have_value("0:2, 5:11, 2:5, 11:30")
    expect(selected(page)).to_have_count(3)
    drag(page, layers(page, "patient").nth(9), layers(page, "patient").nth(0), 0.1)
    expect(plan_box(page)).to_have_value("2:5, 0:2, 5:30")


def test_layers_of_the_base_are_dragged_into_the_patient(page):
    select(page, 20, 22, "base")
    drag(page, layers(page, "base").nth(21), layers(page, "patient").nth(4), 0.9)
    expect(plan_box(page)).to_have_value("0:5, 20:23, 5:30")
    expect(layers(page, "patient").locator("visible=true").nth(24)).to_have_class("layer copy")


def test_a_click_selects_one_and_shift_extends(page):
    layers(page, "patient").nth(5).click()
    layers(page, "patient").nth(8).click(modifiers=["Shift"])
    expect(selected(page)).to_have_count(4)
    layers(page, "patient").nth(6).click()
    expect(selected(page)).to_have_count(1)


def test_every_operation_has_a_key_and_a_button(page):
    select(page, 3, 4)
    page.keyboard.press("d")
    expect(plan_box(page)).to_have_value("0:5, 3:30")
    page.keyboard.press("Alt+ArrowRight")
    expect(plan_box(page)).to_have_value("0:6, 3:5, 6:30")
    page.keyboard.press("Alt+ArrowLeft")
    expect(plan_box(page)).to_have_value("0:5, 3:30")
    page.keyboard.press("r")
    expect(plan_box(page)).to_have_value("0:30")
    page.keyboard.press("v")
    expect(plan_box(page)).to_have_value("0:3, 4, 3, 5:30")
    for before in ("0:30", "0:5, 3:30", "0:6, 3:5, 6:30", "0:5, 3:30", "0:30"):
        page.keyboard.press("Control+z")
        expect(plan_box(page)).to_have_value(before)
    page.keyboard.press("Control+Shift+z")
    expect(plan_box(page)).to_have_value("0:5, 3:30")
    page.keyboard.press("Control+z")
    expect(plan_box(page)).to_have_value("0:30")
    page.keyboard.press("Control+a")
    expect(selected(page)).to_have_count(30)
    page.keyboard.press("Escape")
    expect(selected(page)).to_have_count(0)

    bar = page.get_by_role("toolbar")
    bar.get_by_role("button", name="All").click()
    expect(selected(page)).to_have_count(30)
    select(page, 10, 11)
    bar.get_by_role("button", name="Repeat").click()
    depth(page, 32)
    bar.get_by_role("button", name="Move right").click()
    expect(plan_box(page)).to_have_value("0:13, 10:12, 13:30")
    bar.get_by_role("button", name="Drop").click()
    expect(plan_box(page)).to_have_value("0:30")
    select(page, 0, 0)
    bar.get_by_role("button", name="Drop").click()
    depth(page, 29)
    bar.get_by_role("button", name="Restore").click()
    expect(plan_box(page)).to_have_value("0:30")


def test_how_layers_begin(page):
    begin = page.get_by_label("Initialise the selected layers as")
    expect(begin).to_be_disabled()
    select(page, 7, 7)
    page.keyboard.press("d")
    expect(begin).to_have_value("copy")
    begin.select_option("identity")
    expect(plan_box(page)).to_have_value("0:8, 7@identity, 8:30")
    expect(begin).to_have_value("identity")
    expect(layers(page, "patient").nth(8)).to_contain_text("= 0")
    begin.select_option("copy")
    expect(plan_box(page)).to_have_value("0:7, 7*2, 8:30")


def test_what_was_dropped_is_selected_in_the_base_and_comes_back(page):
    select(page, 13, 16)
    page.keyboard.press("Delete")
    depth(page, 26)
    expect(page.locator("[data-strip=base] .layer[aria-selected=true]")).to_have_count(4)
    page.keyboard.press("r")
    depth(page, 30)
    assert order(page) == ALL


def test_without_a_mouse(page):
    patient = page.get_by_role("listbox", name="Layers of the patient")
    patient.focus()
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    expect(selected(page)).to_have_count(4)
    page.keyboard.press("d")
    depth(page, 34)
    expect(patient).to_be_focused()
    active = patient.get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-label").startswith("Position 7: layer 3")
    expect(page.locator(".strip-live")).to_have_text("4 layers repeated: 34 layers now")
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("listbox", name="Layers of the base")).to_be_focused()
    expect(page.locator("[data-strip=base] .layer[aria-selected=true]")).to_have_count(1)


def test_layers_of_the_base_are_inserted_without_a_mouse(page):
    base = page.get_by_role("listbox", name="Layers of the base")
    insert = page.get_by_role("button", name="Insert I")
    base.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(insert).to_be_visible()
    page.keyboard.press("i")
    expect(plan_box(page)).to_have_value("0:3, 1:30")
    page.keyboard.press("Alt+ArrowRight")  # what was inserted is selected
    expect(plan_box(page)).to_have_value("0:4, 1:3, 4:30")
    expect(insert).to_be_hidden()  # layers of the patient are moved


def test_rapid_keys_are_all_applied_in_order(page):
    select(page, 0, 0)
    for _ in range(6):
        page.keyboard.press("Alt+ArrowRight")
    page.keyboard.press("d")
    for _ in range(3):
        page.keyboard.press("Alt+ArrowLeft")
    page.keyboard.press("Delete")
    expect(plan_box(page)).to_have_value("1:7, 0, 7:30")
    for _ in range(11):
        page.keyboard.press("Control+z")
    expect(plan_box(page)).to_have_value("0:30")


def test_the_notation_is_read_and_written(page):
    write_plan(page, " 0:22,8 : 30 ")
    depth(page, 44)
    expect(plan_box(page)).to_have_value("0:22, 8:30")
    write_plan(page, "solar m=4")
    expect(plan_box(page)).to_have_value("0:26, 4:30")
    write_plan(page, "0:13, 17:40")
    error = page.get_by_role("alert")
    expect(error).to_contain_text("17:40")
    expect(error).to_contain_text("layers 0 to 29")
    expect(plan_box(page)).to_have_value("0:13, 17:40")  # what was typed can be mended
    depth(page, 52)
    write_plan(page, "0:13, 17:30")
    depth(page, 26)
    expect(error).to_be_hidden()


def test_presets(page):
    page.get_by_role("button", name="Presets").click()
    form = page.locator(".strip-preset", has_text="llama-pro")
    form.get_by_label("every").fill("10")
    form.get_by_role("button", name="Apply").click()
    expect(plan_box(page)).to_have_value("0:10, 9@identity, 10:20, 19@identity, 20:30, 29@identity")
    expect(page.locator("[data-strip=patient] .layer.initialised")).to_have_count(3)
    page.get_by_role("button", name="Presets").click()
    form = page.locator(".strip-preset", has_text="drop-middle")
    form.get_by_label("n").fill("99")
    form.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("alert")).to_contain_text("n can be 1 to 29")


def test_markup_in_a_plan_is_text(page):
    write_plan(page, "<img src=x onerror=alert(1)>")
    expect(page.get_by_role("alert")).to_contain_text("<img src=x")
    assert page.locator("#strip img").count() == 0


def test_a_finger_on_a_phone(phone):
    page = phone
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert layers(page, "patient").nth(0).bounding_box()["width"] >= 24
    bar = page.locator(".strip-bar").bounding_box()
    assert bar["height"] < 110  # two rows
    select(page, 13, 16)
    tools = page.get_by_role("toolbar", name="Operations").bounding_box()
    assert tools["x"] >= 0 and tools["x"] + tools["width"] <= 390
    page.get_by_role("button", name="Drop").tap()
    depth(page, 26)
    expect(plan_box(page)).to_have_value("0:13, 17:30")


def test_a_thumb_zooms_the_strip(phone):
    page = phone
    narrower, wider = (page.get_by_role("button", name=name) for name in ("Narrower", "Wider"))
    tile = layers(page, "patient").nth(0)
    panels = page.locator("#panels").bounding_box()["y"]

    def width() -> float:
        return tile.bounding_box()["width"]

    before = width()
    assert before >= 24
    expect(narrower).to_be_disabled()  # nothing a finger can't hit
    for button in (narrower, wider):
        box = button.bounding_box()
        assert box["width"] >= 36 and box["height"] >= 36
    wider.tap()
    assert width() > 1.3 * before
    for _ in range(2):
        wider.tap()
    assert width() > 72
    expect(wider).to_be_disabled()
    layers(page, "patient").nth(3).scroll_into_view_if_needed()
    select(page, 3, 4)  # pointers meet the layers that they see
    for _ in range(3):
        narrower.tap()
    expect(narrower).to_be_disabled()
    assert width() == pytest.approx(before)
    assert page.locator("#panels").bounding_box()["y"] == panels
    for name in ("Weights", "X-ray"):  # where the strip is low they lie over no layer
        page.get_by_role("tab", name=name).click()
        row = page.locator("[data-strip=base]").bounding_box()
        box = wider.bounding_box()
        assert box["y"] + box["height"] <= row["y"] + 1


def test_wide_tiles_need_no_zoom(page):
    expect(page.locator(".strip-zoom")).to_be_hidden()


def test_the_preset_menu_says_how_large_each_plan_is(page):
    select(page, 3, 5)
    page.get_by_role("button", name="Presets").click()
    form = page.locator(".strip-preset", has_text="solar")
    expect(form.locator("output")).to_have_text("46 layers, 191,156,544 parameters")
    form.get_by_label("m").fill("8")
    expect(form.locator("output")).to_have_text("44 layers, 184,076,352 parameters")
    form.get_by_label("m").fill("99")
    expect(form.locator("output")).to_contain_text("m=99 does not fit")
    depth(page, 30)
    expect(selected(page)).to_have_count(3)
    expect(page.locator(".strip-error")).to_be_hidden()


# ---------------------------------------------------------------- plates, contents


def test_embedding_norm_and_head_stand_at_the_ends(page):
    for strip in STRIPS:
        plates = page.locator(f"[data-plates={strip}] .plate")
        expect(plates).to_have_count(3)
        expect(plates.nth(0)).to_have_attribute("title", "Embedding: 28,311,552 parameters")
        expect(plates.nth(1)).to_have_attribute("title", "Final norm: 576 parameters")
        expect(plates.nth(2)).to_have_attribute("title", "Head: uses the weights of the embedding")
    write_plan(page, "0:10")
    depth(page, 10)
    last = layers(page, "patient").last.bounding_box()
    norm = page.locator("[data-plates=patient] .plate").nth(1).bounding_box()
    assert 0 <= norm["x"] - last["x"] - last["width"] < 12
    first = layers(page, "patient").first.bounding_box()
    embedding = page.locator("[data-plates=patient] .plate").nth(0).bounding_box()
    assert 0 <= first["x"] - embedding["x"] - embedding["width"] < 12


def test_a_layer_opens_to_what_is_in_it(page):
    sheet = page.get_by_role("region", name="What is in layer 5")
    tile = layers(page, "patient").nth(5)
    tile.click()
    expect(sheet).to_be_hidden()
    tile.click()
    expect(sheet).to_contain_text("Layer 5 has 3,540,096 parameters")
    expect(sheet).to_contain_text("MLP")
    expect(sheet.locator(".strip-part-row", has_text="q_proj")).to_contain_text("576 × 576")
    expect(page.locator(".strip-live")).to_contain_text("Attention 884,736")
    tile.click()
    expect(sheet).to_be_hidden()
    page.keyboard.press("Enter")
    expect(sheet).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(sheet).to_be_hidden()
    page.get_by_role("button", name="Details").click()
    sheet = page.get_by_role("region", name="What is in layer 6")
    expect(sheet).to_be_visible()
    assert not faults(page)
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    expect(selected(page)).to_have_count(1)  # a second one clears the selection
    page.keyboard.press("Escape")
    expect(selected(page)).to_have_count(0)


# ---------------------------------------------------------------- what floats over the strip


def test_the_toolbar_stands_at_the_selection(page):
    sizes = ((1920, 1080), (1366, 768), (390, 844))
    for (width, height), strip in product(sizes, STRIPS):
        page.set_viewport_size({"width": width, "height": height})
        select(page, 4, 6, strip)
        tools = page.get_by_role("toolbar", name="Operations").bounding_box()
        frame = page.locator(".strip-frame").bounding_box()
        assert tools["x"] >= 0 and tools["x"] + tools["width"] <= width
        assert tools["x"] <= frame["x"] + frame["width"]
        assert frame["x"] <= tools["x"] + tools["width"]
        # It covers no tile.
        base, patient = (page.locator(f"[data-strip={s}]").bounding_box() for s in STRIPS)
        assert tools["y"] >= base["y"] + base["height"] - 1
        assert tools["y"] + tools["height"] <= patient["y"] + 1


def test_a_drag_carries_the_tiles_and_opens_a_gap(page):
    select(page, 2, 4)
    tiles = layers(page, "patient")
    start, end = tiles.nth(3).bounding_box(), tiles.nth(10).bounding_box()
    page.mouse.move(start["x"] + 20, start["y"] + 20)
    page.mouse.down()
    page.mouse.move(end["x"] + 0.9 * end["width"], end["y"] + 20, steps=6)
    carried = page.locator(".strip-carried .layer")
    expect(carried).to_have_count(3)
    assert carried.all_inner_texts() == ["2", "3", "4"]
    assert abs(carried.nth(1).bounding_box()["x"] - end["x"]) < end["width"] * 1.1
    expect(page.locator("[data-strip=patient] > .lifted")).to_have_count(3)
    left, right = (tiles.nth(i).bounding_box() for i in (10, 11))
    assert right["x"] - left["x"] - left["width"] > 0.5 * left["width"]
    page.keyboard.press("Escape")
    expect(carried).to_have_count(0)
    expect(page.locator(".lifted")).to_have_count(0)
    page.mouse.up()
    expect(plan_box(page)).to_have_value("0:30")


# ---------------------------------------------------------------- other bases


@pytest.mark.parametrize("count", [6])
def test_a_base_that_can_not_read_says_so_and_offers_no_measuring(bare_page):
    page = bare_page
    expect(page.locator(".strip-unmeasured")).to_be_visible()
    expect(page.get_by_role("button", name="Measure importance")).to_be_hidden()
    expect(page.locator("#about p")).to_have_text(re.compile("^No tokenizer"))


@pytest.mark.parametrize("count", [6, 126])
def test_few_and_many_layers(bare_page, count):
    page = bare_page
    select(page, count // 2, count // 2 + 1)
    page.keyboard.press("d")
    depth(page, count + 2)
    first, last = (layers(page, "patient").nth(i).bounding_box() for i in (0, count + 1))
    strip = page.locator(".strip").bounding_box()
    assert strip["x"] <= first["x"] and last["x"] + last["width"] <= strip["x"] + strip["width"]
    assert layers(page, "patient").locator(".layer-number:visible").count() >= 6
    # Six layers fill the width as 126 do.
    base = [layers(page, "base").nth(i).bounding_box() for i in (0, count - 1)]
    assert base[1]["x"] + base[1]["width"] - base[0]["x"] > 0.8 * strip["width"] * (
        count / (count + 2)
    )
    page.keyboard.press("Control+z")
    depth(page, count)


@pytest.mark.parametrize("count", [126])
def test_keys_zoom_a_strip_of_many_layers(bare_page):
    page = bare_page
    expect(page.locator(".strip-zoom")).to_be_visible()
    layers(page, "patient").nth(60).click()
    before = layers(page, "patient").nth(60).bounding_box()
    page.keyboard.press("+")
    after = layers(page, "patient").nth(60).bounding_box()
    assert after["width"] > 1.3 * before["width"]
    strip = page.locator(".strip-scroll").bounding_box()
    assert strip["x"] < after["x"] < strip["x"] + strip["width"]  # still in sight
    page.keyboard.press("-")
    assert layers(page, "patient").nth(60).bounding_box() == before
