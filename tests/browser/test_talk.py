"""Base and patient side by side: compared, run again, and never taken for what the page shows once
it has changed."""

import math
import re

import tiny_llava
from hands import (
    both_schemes,
    depth,
    do_step,
    faults,
    jump,
    open_base,
    open_lesson,
    select,
    write_plan,
)
from PIL import Image
from playwright.sync_api import expect

from surgery import Plan
from surgery.analysis import surprises

STRIPS = ("base", "patient")
PROMPT = "The three most important inventions in history are"
# The small base's likeliest text may be one token again and again; this one has words.
DRAWN = "&greedy=0"


def said(page, who):
    return page.locator(f"[data-who={who}] .talk-said")


def facts(page, who="patient"):
    return page.locator(f"[data-who={who}] output")


def stale(page, who="patient"):
    return page.locator(f"[data-who={who}] .talk-stale")


def caret(page):
    return page.locator(".talk-caret")


def ended(page):
    """Wait until a run that has begun has come to its end, with the base's surprise."""
    coloured = page.locator("[data-who=patient] .talk-said [title*=probability]")
    expect(coloured.first).to_be_attached(timeout=120_000)
    expect(caret(page)).to_have_count(0)


def of_length(page, tokens):
    page.locator(".talk-settings button").first.click()
    box = page.get_by_label("number input for Length")
    box.fill(str(tokens))
    box.press("Enter")


def test_texts_are_compared(app, open_page, bundled):
    page = open_page(f"{app}/?tokens=32")
    expect(page.locator("[data-who=patient] .talk-hint")).to_contain_text("framed")
    write_plan(page, "0:13, 17:30")
    depth(page, 26)
    page.locator("#prompt textarea").fill(PROMPT)
    page.locator("#stream").click()
    ended(page)
    how = {"greedy": True, "max_new_tokens": 32}
    stream = bundled.operate(Plan.parse("0:13, 17:30", 30)).stream(PROMPT, **how)
    text = "".join(stream)
    base = "".join(bundled.operate(Plan.whole(30)).stream(PROMPT, **how))
    word = next(
        i for i, (a, b) in enumerate(zip(text.split(), base.split(), strict=False)) if a != b
    )
    expect(facts(page)).to_contain_text(f"differs at word {word + 1}")
    for who, one in (("patient", text), ("base", base)):
        expect(page.locator(f"[data-who={who}] .talk-apart")).to_have_text(one.split()[word])

    texts = page.locator(".talk-text").all()
    tops = [one.bounding_box()["y"] for one in texts]
    assert abs(tops[0] - tops[1]) < 3  # plan and facts take one line

    # Each token is marked by the base's probability of it, and says it.
    tokens = page.locator("[data-who=patient] .talk-said [title*=probability]")
    drawn = tokens.evaluate_all("all => all.map(x => [x.textContent, x.className.at(-1) || '0'])")
    assert "".join(piece for piece, _ in drawn) == text
    levels = [
        (piece, sum(nats > math.log(odds) for odds in (10, 100, 1000)))
        for piece, nats in surprises(bundled.operate(Plan.whole(30)).model, stream)
    ]
    assert len({level for _, level in levels}) > 1
    assert "".join(level * len(piece) for piece, level in drawn) == "".join(
        str(level) * len(piece) for piece, level in levels
    )
    expect(page.locator(".talk-legend")).to_contain_text("below 0.1 %")
    lines = page.locator("[data-who=patient] [class^=level], .talk-legend i").evaluate_all(
        "all => all.map(x => getComputedStyle(x).textDecorationLine)"
    )
    assert len(lines) > 3 and set(lines) == {"underline"}
    for _ in both_schemes(page):
        assert not faults(page)


def test_a_press_during_a_run_begins_anew_and_a_late_stop_leaves_it_alone(app, open_small):
    page = open_small(app, f"{DRAWN}&tokens=512")
    page.locator("#prompt textarea").fill("Once upon a time")
    page.locator("#stream").click()
    expect(said(page, "patient")).to_have_text(re.compile(r"\w"), timeout=120_000)
    page.locator("#prompt textarea").fill("The capital of France is")
    write_plan(page, "0:20, 22:30")
    depth(page, 28)
    assert caret(page).count()  # the run still goes on
    page.locator("#stream").click()
    expect(page.locator("[data-who=base] .talk-prompt")).to_have_text("The capital of France is")
    expect(page.locator("[data-who=patient] .talk-plan")).to_have_text("0:20, 22:30")
    expect(said(page, "patient")).to_have_text(re.compile(r"\w"), timeout=120_000)

    # One right after Stop is not lost.
    page.locator("#prompt textarea").fill("Water boils at")
    page.locator("#stop").click()
    page.locator("#stream").click()
    expect(page.locator("[data-who=base] .talk-prompt")).to_have_text("Water boils at")
    expect(said(page, "patient")).to_have_text(re.compile(r"\w"), timeout=120_000)

    # And what Stop asks for may arrive when the next run is under way, which goes on.
    held = []

    def hold(route):
        """Keep back the first request after Stop."""
        if held or "queue/join" not in route.request.url:
            route.fallback()
        else:
            held.append(route)

    page.locator("#prompt textarea").fill("Salt is")
    page.route("**/gradio_api/**", hold)
    with page.expect_request("**/queue/join*"):
        page.locator("#stop").click()
    page.locator("#stream").click()
    prompt = page.locator("[data-who=base] .talk-prompt")
    expect(prompt).to_have_text("Salt is", timeout=60_000)
    assert held
    with page.expect_response(lambda response: response.request == held[0].request):
        held[0].continue_()
    page.unroute_all(behavior="wait")
    page.wait_for_timeout(1000)
    for _ in range(2):  # the text goes on
        words = len(said(page, "patient").inner_text())
        page.wait_for_function(
            "n => document.querySelector('[data-who=patient] .talk-said').innerText.length > n",
            arg=words,
            timeout=60_000,
        )
    expect(caret(page)).to_have_count(2)
    expect(page.locator("#talk-status")).not_to_contain_text("Stopped")
    page.locator("#stop").click()
    expect(caret(page)).to_have_count(0)
    expect(page.locator("#talk-status")).to_contain_text("Stopped")
    before = said(page, "patient").inner_text()
    page.wait_for_timeout(1500)
    assert said(page, "patient").inner_text() == before


def visible_in(page, who):
    """Whether the framed word lies in the part of the text that is in sight."""
    return page.evaluate(
        """who => {
          const text = document.querySelector(`[data-who=${who}] .talk-text`);
          const [box, mark] = [text, text.querySelector('.talk-apart')].map(
            (node) => node.getBoundingClientRect());
          return mark.top >= box.top - 1 && mark.bottom <= box.bottom + 1;
        }""",
        who,
    )


def scroll_of(page, who):
    return page.locator(f"[data-who={who}] .talk-text").evaluate("node => node.scrollTop")


def test_the_word_that_differs_is_in_sight_at_the_end(app, open_small):
    """However long the texts are; but a reader keeps the place."""
    page = open_small(app, f"{DRAWN}&plan=0:13,17:30&tokens=128", width=1366, height=768)
    depth(page, 26)
    page.locator("#prompt textarea").fill(PROMPT)
    page.locator("#stream").click()
    followed = "() => document.querySelector('[data-who=patient] .talk-text').scrollTop > 0"
    page.wait_for_function(followed, timeout=120_000)  # its end is followed
    ended(page)
    for who in ("base", "patient"):
        assert visible_in(page, who)
    height, room = page.locator("[data-who=patient] .talk-text").evaluate(
        "node => [node.scrollHeight, node.clientHeight]"
    )
    assert height > room

    write_plan(page, "0:12, 17:30")
    depth(page, 25)
    page.locator("#stream").click()
    # This run's text has outgrown its room; that of the one before has 128 tokens.
    expect(facts(page)).to_contain_text(re.compile(r"\b[6-9]\d tokens"), timeout=120_000)
    page.wait_for_function(followed, timeout=120_000)
    page.locator("[data-who=patient] .talk-text").hover()
    page.mouse.wheel(0, -10_000)
    page.wait_for_function(
        "document.querySelector('[data-who=patient] .talk-text').scrollTop === 0"
    )
    assert caret(page).count()  # the text still grows
    ended(page)
    assert scroll_of(page, "patient") == 0


def test_an_outdated_text_says_what_has_changed(app, open_small, tiny_folder):
    """The plan, the prompt, a setting or the base."""
    page = open_small(app, "&plan=0:13,17:30")
    depth(page, 26)
    of_length(page, 8)
    prompt = page.locator("#prompt textarea")
    prompt.fill("Once upon a time")
    page.locator("#stream").click()
    ended(page)
    expect(facts(page)).to_contain_text("8 tokens")
    expect(stale(page)).to_have_text("")
    top = page.locator("[data-who=base] .talk-text").bounding_box()["y"]
    prompt.fill("Once upon a time,")
    for who in ("base", "patient"):
        expect(stale(page, who)).to_have_text("Outdated: the prompt changed.")
    assert page.locator("[data-who=base] .talk-text").bounding_box()["y"] == top  # nothing moves
    for _ in both_schemes(page):
        assert not faults(page)
    greedy = page.get_by_label("Greedy")
    greedy.uncheck()
    expect(stale(page)).to_have_text("Outdated: the prompt and the decoding method changed.")
    prompt.fill("Once upon a time")
    expect(stale(page)).to_have_text("Outdated: the decoding method changed.")
    greedy.check()
    expect(stale(page)).to_have_text("")
    page.get_by_label("Seed").fill("7")  # greedy decoding does not use it
    page.get_by_label("Seed").press("Tab")
    expect(stale(page)).to_have_text("")
    chat = page.get_by_label("Apply chat template")
    chat.check()
    for who in ("base", "patient"):
        expect(stale(page, who)).to_have_text("Outdated: the use of the chat template changed.")
    chat.uncheck()
    expect(stale(page)).to_have_text("")

    write_plan(page, "0:13, 18:30")
    depth(page, 25)
    expect(stale(page)).to_have_text("Outdated: the plan changed.")
    expect(page.locator("[data-who=patient] .talk-plan")).to_have_text("0:13, 17:30")
    expect(stale(page, "base")).to_have_text("")
    write_plan(page, "nonsense")  # changes nothing
    expect(page.locator(".strip-error")).to_be_visible()
    expect(stale(page)).to_have_text("Outdated: the plan changed.")
    page.get_by_role("button", name="Undo").click()
    depth(page, 26)
    expect(stale(page)).to_have_text("")
    open_base(page, str(tiny_folder("llama")))
    depth(page, 6)
    for who in ("base", "patient"):
        expect(stale(page, who)).to_have_text("Outdated: the base changed.")


def test_the_layers_that_a_token_needs(app, open_page, tiny_folder):
    query = "plan=0:2,4:6&prompt=hello&tokens=8"
    page = open_page(f"{app}/?base={tiny_folder('llama')}&{query}")
    depth(page, 4)
    expect(page.locator("#prompt textarea")).to_have_value("hello")
    page.locator("#stream").click()
    ended(page)
    page.get_by_role("button", name="Which layers mattered?").click()
    base, patient = (page.locator(f"[data-strip={who}] .layer.needed") for who in STRIPS)
    expect(base).to_have_count(6, timeout=60_000)
    text = page.get_by_role("listbox", name="Output of the patient")
    text.get_by_role("option").first.click()
    expect(base).to_have_count(0)
    expect(patient).to_have_count(4)
    facts = page.locator(".talk-facts output")
    expect(facts).to_have_text(re.compile("^Patient: .*Layers that it needs most"))
    expect(patient.first).to_have_attribute("title", re.compile(r"without it “.*nats"))
    page.keyboard.press("End")
    expect(text.get_by_role("option").last).to_have_attribute("aria-selected", "true")
    expect(page.locator("#talk-map-base .plot-area")).to_have_attribute("data-drawn", "1")
    for _ in both_schemes(page):
        assert not faults(page)
    page.get_by_role("tab", name="Save").click()  # the strip is that of the page again
    expect(patient).to_have_count(0)
    page.get_by_role("tab", name="Talk").click()
    expect(patient).to_have_count(4)
    page.get_by_role("button", name="Close").click()
    expect(patient).to_have_count(0)
    expect(page.locator("#talk-map-base")).to_be_hidden()
    expect(page.get_by_role("button", name="Which layers mattered?")).to_be_visible()


def test_auto_run_follows_the_edits_and_an_edit_ends_the_run_before(app, open_small):
    page = open_small(app, f"{DRAWN}&tokens=16#auto-run")
    switch = page.get_by_role("switch", name="Auto-run")
    expect(switch).to_be_checked()
    write_plan(page, "0:13, 17:30")
    depth(page, 26)
    expect(page.locator("[data-who=patient] .talk-plan")).to_have_text("0:13, 17:30")
    expect(stale(page)).to_have_text("")
    ended(page)
    base = facts(page, "base").inner_text()  # with its speed, so it was not generated again
    write_plan(page, "0:12, 17:30")
    write_plan(page, "0:11, 17:30")
    depth(page, 24)
    expect(page.locator("[data-who=patient] .talk-plan")).to_have_text("0:11, 17:30")
    expect(stale(page)).to_have_text("")
    ended(page)
    assert facts(page, "base").inner_text() == base

    # What was edited elsewhere is run once its panel is back.
    page.get_by_role("tab", name="Save").click()
    write_plan(page, "0:10, 17:30")
    depth(page, 23)
    page.wait_for_timeout(1500)
    expect(stale(page)).to_have_text("Outdated: the plan changed.")
    page.get_by_role("tab", name="Talk").click()
    expect(stale(page)).to_have_text("")
    ended(page)

    switch.uncheck()
    write_plan(page, "0:9, 17:30")
    depth(page, 22)
    page.wait_for_timeout(1500)
    expect(stale(page)).to_have_text("Outdated: the plan changed.")
    switch.check()
    expect(stale(page)).to_have_text("")
    ended(page)

    of_length(page, 512)
    write_plan(page, "0:20, 22:30")
    expect(page.locator("[data-who=patient] .talk-plan")).to_have_text("0:20, 22:30")
    expect(said(page, "patient")).to_have_text(re.compile(r"\w"), timeout=120_000)
    page.get_by_role("tab", name="Save").click()  # so that no new one begins
    assert caret(page).count()
    write_plan(page, "0:19, 22:30")
    depth(page, 27)
    expect(caret(page)).to_have_count(0)
    before = said(page, "patient").text_content()
    page.wait_for_timeout(1500)
    assert said(page, "patient").text_content() == before
    expect(facts(page)).to_contain_text("token")
    expect(facts(page)).not_to_contain_text("512 tokens")  # it did not just come to its end


def test_auto_run_follows_edits_alone(app, open_page):
    """Not the plan of a link, and not the steps of the lesson, which run what they need."""
    page = open_page(f"{app}/?plan=0:13,17:30&tokens=8#auto-run")
    depth(page, 26)
    open_lesson(page)
    jump(page, 4)
    do_step(page)
    depth(page, 10)
    page.locator(".lesson [data-do=reset]").click()
    depth(page, 30)
    page.wait_for_timeout(1500)
    for who in ("base", "patient"):
        expect(said(page, who)).to_have_count(0)
    select(page, 0, 0)
    page.keyboard.press("Delete")
    depth(page, 29)
    expect(page.locator("[data-who=patient] .talk-plan")).to_have_text("1:30")


def picture(page, path) -> Image.Image:
    """The share card, as a visitor downloads it."""
    page.get_by_role("button", name="Link").click()
    with page.expect_download(timeout=90_000) as download:
        page.get_by_role("button", name="Download picture").click()
    assert download.value.suggested_filename == "layer-surgery.png"
    download.value.save_as(path)
    page.keyboard.press("Escape")
    with Image.open(path) as image:
        return image.convert("RGB")


def test_a_picture_of_the_page(app, open_small, tmp_path):
    """It has the strip in its colours and both texts, in the theme of the page."""
    page = open_small(app, f"{DRAWN}&plan=0:13,17:30&tokens=24")
    depth(page, 26)
    empty = picture(page, tmp_path / "empty.png")
    assert empty.size == (1200, 630)
    page.locator("#prompt textarea").fill("<img src=x onerror=alert(1)> is markup for")
    page.locator("#stream").click()
    ended(page)
    light = picture(page, tmp_path / "light.png")
    colours = {"".join(f"{c:02x}" for c in pixel) for _, pixel in light.getcolors(1 << 20)}
    tile = page.locator("[data-strip=patient] .layer").last
    colour = tile.evaluate("node => node.style.getPropertyValue('--layer')")
    assert colour.removeprefix("#") in colours
    below = (0, 330, 1200, 630)
    assert light.crop(below).tobytes() != empty.crop(below).tobytes()
    assert page.locator("img[src=x]").count() == 0
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.body.classList.contains('dark')")
    dark = picture(page, tmp_path / "dark.png")
    assert sum(light.getpixel((5, 5))) > 600 and sum(dark.getpixel((5, 5))) < 150


def test_an_image_goes_with_the_prompt(app, open_page, tmp_path):
    tiny_llava.save(tmp_path / "llava")
    page = open_page(f"{app}/?base={tmp_path / 'llava'}&tokens=8")
    depth(page, 6)
    picker = page.locator("#talk-image")
    expect(picker).to_be_visible()
    image = tiny_llava.picture(tmp_path / "fade.png", width=2000, height=1500)
    picker.locator("input").set_input_files(image)
    expect(picker.get_by_role("img")).to_have_attribute("alt", "The image of the prompt: fade.png")
    drawn = picker.get_by_role("img").evaluate("x => [x.naturalWidth, x.naturalHeight]")
    assert drawn == [1024, 768]
    page.locator("#stream").click()
    for who in ("base", "patient"):
        expect(facts(page, who)).to_contain_text("tokens")
    expect(page.locator(".talk-explain")).to_be_hidden()
    assert not faults(page)
    notes = {"name": "<b>.txt", "mimeType": "text/plain", "buffer": b"hello"}
    picker.locator("input").set_input_files(notes)
    expect(picker.get_by_role("status")).to_contain_text("<b>.txt can’t be read as an image")
    for who in ("base", "patient"):
        expect(stale(page, who)).to_have_text("Outdated: the image changed.")
    open_base(page, "bundled")  # which takes none
    depth(page, 30)
    expect(picker).to_be_hidden()
