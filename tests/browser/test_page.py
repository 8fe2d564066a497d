"""The page as a whole: bases, strangers, sessions side by side, readability for everyone."""

import re
from itertools import product
from pathlib import Path

import pytest
import tiny
from hands import (
    both_schemes,
    depth,
    faults,
    layers,
    open_base,
    plan_box,
    select,
    write_plan,
)
from playwright.sync_api import Page, expect
from window_sizes import resize

COMPONENTS = Path(__file__).parents[2] / "components"
_COUNTING = """
window.asked = 0;
const frame = window.requestAnimationFrame;
window.requestAnimationFrame = (call) => { window.asked += 1; return frame.call(window, call); };
"""


@pytest.fixture
def page(opened):
    """The page of most tests here, as it was opened."""
    yield from opened.visit()


def fitted(page: Page, width: int, height: int) -> None:
    """Resize the window; nothing sticks out of it."""
    resize(page, width, height)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_another_base_from_a_folder(page, tmp_path):
    tiny.model("gemma3_text").save_pretrained(tmp_path / "tiny gemma")
    open_base(page, f"{tmp_path}/tiny gemma")
    depth(page, 6)
    expect(page.locator("#about p")).to_contain_text(
        "Gemma3 · 6 layers · stored and computed in float32"
    )
    expect(layers(page, "base").nth(0)).to_have_attribute(
        "title", "Layer 0, sliding: at position 0 of the patient"
    )
    expect(page.locator("#stream")).to_be_disabled()
    expect(page.locator("#talk-status p")).to_contain_text("has no tokenizer")
    open_base(page, "bundled")
    depth(page, 30)
    expect(page.locator("#stream")).to_be_enabled()
    expect(page.locator("#talk-status p")).to_have_text("")


def test_a_base_that_can_not_be_opened(page):
    select(page, 0, 0)
    page.keyboard.press("Delete")
    depth(page, 29)
    line = page.locator("#about .status.failed p")
    for spec, said in (
        ("no/such/model", "neither a folder nor a Hub id"),
        ("/no/such/folder", "There is no folder"),
        ("config:/no/such.json", "There is no file"),
        ("<b>bold</b>", "<b>bold</b>"),
    ):
        open_base(page, spec)
        expect(line).to_contain_text(said)
        expect(line).to_contain_text("SmolLM2-135M-Instruct is still open.")
        expect(page.locator("[data-of=base] i")).to_have_text("SmolLM2-135M-Instruct")
        depth(page, 29)  # what was open stays open
    assert page.locator("#about b").count() == 0


def test_a_first_base_that_can_not_be_opened_leaves_a_line_and_no_skeleton(app, tabs):
    page = tabs.take(1366, 768, "light", False)
    page.goto(f"{app}/?base=/no/such/folder")
    expect(page.locator("#about .failed p")).to_contain_text("There is no folder")
    expect(page.locator(".strip-empty")).to_contain_text("Choose a base above")
    expect(page.locator(".strip.opening")).to_have_count(0)
    tabs.give_back(page, False)


def test_a_long_name_ends_before_the_arrow(page):
    box = page.locator("#base input")
    before = box.input_value()
    box.fill("organisation/a-model-with-a-very-long-name-that-goes-on-and-on-Instruct")
    padding = box.evaluate("box => parseFloat(getComputedStyle(box).paddingRight)")
    arrow = page.locator("#base .icon-wrap").bounding_box()
    edge = box.bounding_box()
    assert edge["x"] + edge["width"] - padding <= arrow["x"] + 1
    assert box.evaluate("box => getComputedStyle(box).textOverflow") == "ellipsis"
    box.fill(before)  # or it would be opened


def test_names_and_kinds_are_text(page, tmp_path):
    """A model can be called anything, and so can what its config calls its layers."""
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    tiny.model("llama").save_pretrained(folder)
    open_base(page, str(folder))
    depth(page, 6)
    expect(page.locator(".strip-live")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("img[src=x]").count() == 0


def test_an_idle_page_asks_for_no_frames(page):
    """Once what is drawn after the start and after an edit has come to rest."""
    counting = page.context.new_cdp_session(page)
    counting.send("Page.enable")
    counting.send("Page.addScriptToEvaluateOnNewDocument", {"source": _COUNTING})
    page.reload()
    write_plan(page, "0:10")
    depth(page, 10)
    asked = []
    while len(asked) < 20 and asked[-1:] != [0]:
        page.evaluate("window.asked = 0")
        page.wait_for_timeout(500)
        asked.append(page.evaluate("window.asked"))
    counting.detach()
    assert asked[0] > 0 and asked[-1] == 0, asked


def test_two_people_have_two_plans(page, app, open_page):
    first, second = page, open_page(app)
    write_plan(first, "0:10")
    depth(first, 10)
    write_plan(second, "0:20, 10:30")
    depth(second, 40)
    first.keyboard.press("Escape")
    select(first, 0, 0)
    first.keyboard.press("d")
    expect(plan_box(first)).to_have_value("0*2, 1:10")
    expect(plan_box(second)).to_have_value("0:20, 10:30")


def test_everyone_can_read_it(page):
    """axe-core finds no fault, nothing sticks out, and a wide screen shows it all at once."""
    write_plan(page, "0:13, 17:20, 17:30, 29@identity")
    expect(page.locator("[data-strip=patient] .layer.initialised")).to_have_count(1)
    for scheme in both_schemes(page):
        for width, height in ((1920, 1080), (1366, 768), (390, 844)):
            fitted(page, width, height)
            if width == 1920:
                assert page.evaluate("document.documentElement.scrollHeight") <= height
            assert not faults(page), (scheme, width)


def test_help_opens_and_closes(page):
    page.get_by_role("button", name="Help").click()
    sheet = page.get_by_role("dialog")
    expect(sheet).to_contain_text("drops layers 13 to 16")
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    page.locator(".strip-row").first.focus()
    page.keyboard.press("?")
    expect(sheet).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect(sheet).to_be_hidden()
    page.locator("#prompt textarea").focus()
    page.keyboard.press("?")  # somebody asks the models something
    expect(sheet).to_be_hidden()
    before = page.evaluate("document.body.classList.contains('dark')")
    for dark in (not before, before):
        page.get_by_role("button", name="Light / dark").click()
        assert page.evaluate("document.body.classList.contains('dark')") == dark


def test_help_lists_every_panel_and_every_key(page):
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog")
    expect(sheet).to_be_visible()
    listed = set(sheet.locator("dt").all_inner_texts())
    panels = page.locator("#panels > .tab-wrapper [role=tab]").all_text_contents()
    assert {"Talk", "X-ray", "Log", "Heal"} <= {name.strip() for name in panels}
    assert {name.strip() for name in panels} | {"Lesson", "Link"} <= listed
    named = {"Delete": "Delete", "Backspace": "Backspace", "Home": "Home", "End": "End"}
    named |= {"PageUp": "Page Up", "PageDown": "Page Down", "Escape": "Escape", "Enter": "Enter"}
    named |= {"ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "ArrowDown": "↓"}
    keys = set(sheet.locator("kbd").all_inner_texts())
    source = "".join(path.read_text() for path in COMPONENTS.rglob("*.mjs"))
    used = set(re.findall(r"\bkey === '([^']+)'", source))
    for table in re.findall(r"const (?:KEYS|STEPS) = \{([^}]+)\}", source):
        used |= set(re.findall(r"(\w+): ", table))
    assert {"Delete", "d", "z", "PageUp", "Escape", "?"} <= used
    for key in used:
        assert named.get(key, key.upper()) in keys, key
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()


def test_sheets_fit_and_can_be_read(app, open_page):
    page = open_page(app)  # without plans to list
    # On a phone all but the sheet is as it is without one: `test_everyone_can_read_it`.
    sizes = ((1366, 768, "html"), (390, 844, "dialog[open]"))
    for scheme in both_schemes(page):
        for (width, height, part), name in product(sizes, ("Help", "Link")):
            fitted(page, width, height)
            page.get_by_role("button", name=name, exact=True).click()
            sheet = page.get_by_role("dialog")
            expect(sheet).to_be_visible()
            box = sheet.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
            assert box["y"] >= 0 and box["y"] + box["height"] <= height
            assert sheet.evaluate("node => node.scrollWidth <= node.clientWidth")
            assert page.evaluate("document.documentElement.scrollWidth") == width
            sheet.evaluate("node => node.scrollTo(0, 1e6)")
            expect(sheet.locator("dd, .link-none").last).to_be_in_viewport()
            assert not faults(page, part), (scheme, width, name)
            page.keyboard.press("Escape")
            expect(sheet).to_be_hidden()
