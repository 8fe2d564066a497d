"""The guided lesson, walked through on the real page."""

import re

import pytest
from hands import (
    both_schemes,
    depth,
    do_step,
    faults,
    jump,
    layers,
    open_lesson,
    order,
    settled,
    step_checked,
    write_plan,
)
from playwright.sync_api import expect

from surgery.lesson.course import STEPS

_TEXT_BOX = """node => {
    const range = document.createRange();
    range.selectNodeContents(node);
    return range.getBoundingClientRect().toJSON();
}"""


def can_be_read(page, width):
    """axe-core finds no fault; nothing sticks out; the strip stays beside the lesson, not under."""
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    lesson = page.locator(".lesson").bounding_box()
    names = page.locator(".lesson-steps span").all_inner_texts()
    assert names == [step.short for step in STEPS]
    expect(page.locator(".lesson-steps [aria-current]")).to_be_in_viewport(ratio=1)
    buttons = page.locator(".lesson button:visible")
    if width < 1100:  # there the steps are a row that scrolls
        buttons = page.locator(":is(.lesson-bar, .lesson-body, .lesson-foot) button:visible")
    for button in buttons.all():
        box = button.bounding_box()
        assert lesson["x"] <= box["x"] and box["x"] + box["width"] <= width
    if width > 1100:
        last = layers(page, "base").last.bounding_box()
        assert last["x"] + last["width"] < lesson["x"]
        page.get_by_role("button", name="Enlarge").click()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        title = page.locator("#title h1").evaluate(_TEXT_BOX)
        for other in page.locator("#top > :not(#title):visible").all():
            box = other.bounding_box()
            assert box["y"] >= title["bottom"] or box["x"] >= title["right"]
        assert page.locator(".lesson").bounding_box()["width"] > lesson["width"]
    for _ in both_schemes(page):
        assert not faults(page)


def stop_step(page):
    """Press the step's button, and Stop once there is text, which then stays as it is."""
    page.locator(".lesson-act").click()
    expect(page.locator(".lesson-text b").first).not_to_have_text("", timeout=120_000)
    page.locator(".lesson [data-do=stop]").click()
    expect(page.locator(".lesson-status p")).to_have_text("Stopped.")
    before = page.locator(".lesson-results").inner_text()
    page.wait_for_timeout(1500)
    assert page.locator(".lesson-results").inner_text() == before


@pytest.mark.timeout(600)
def test_a_walk_through_the_lesson(app, open_page):
    """Each step is done; one of them is stopped first, and then done again."""
    page = open_page(app)
    message = page.locator("[data-who=patient] .talk-said")
    open_lesson(page)
    for number, step in enumerate(STEPS, 1):
        expect(page.locator(".lesson h2")).to_have_text(step.title)
        expect(page.locator(".lesson-check")).to_be_hidden()  # nothing was done yet
        if step.act == "norm":
            stop_step(page)
            expect(page.locator(".lesson-steps .done")).to_have_count(number - 1)
        do_step(page)
        step_checked(page, step)
        expect(page.get_by_role("tab", name=step.tab)).to_have_attribute("aria-selected", "true")
        expect(page.locator(".lesson-steps button").nth(number - 1)).to_have_attribute(
            "aria-label", f"Step {number}: {step.short}, done"
        )
        results = page.locator(".lesson-results")
        if step.act == "talk":
            expect(message).not_to_have_text("")
            expect(page.locator("[data-who=patient] .talk-prompt")).to_have_text(step.prompt)
        elif step.act == "drawn":
            beyond = results.locator("tr", has_text="beyond").locator("td").first.inner_text()
            assert 4.3 < float(beyond.removesuffix(" %")) < 4.8
            expect(page.locator("#weights-detail .plot-title")).to_contain_text("up")
        elif step.act == "norm":
            right, wrong = results.locator(".lesson-text b").all_inner_texts()
            assert right and right != wrong
        elif step.act == "index":
            expect(results.locator(".lesson-error")).to_have_text(re.compile("^IndexError: "))
            expect(results).to_contain_text("No error is raised")
        elif step.act == "heal":
            expect(results.locator("tr", has_text="shorter")).to_contain_text("to")
        elif step.act == "save":
            expect(page.locator("#save-status p")).to_contain_text(
                "SmolLM2-135M-Instruct-26-layers.zip is ready", timeout=120_000
            )
            expect(page.locator("#save-name input, #save-name textarea")).to_have_value("")
        if number < len(STEPS):
            page.locator(".lesson [data-do=next]").click()
            assert f"lesson={number + 1}" in page.url
    expect(page.locator(".lesson [data-do=next]")).to_have_text("Finish")

    # What the page shows is checked, not what was once right.
    write_plan(page, "0:29")
    expect(page.locator(".lesson-check")).to_contain_text(
        "the page shows 130,974,912 (10,620,288 more)"
    )

    page.get_by_role("button", name="Reset", exact=True).click()
    depth(page, 30)
    expect(page.locator(".lesson-count")).to_have_text(f"Step 1 of {len(STEPS)}")
    expect(page.locator(".lesson-steps .done")).to_have_count(0)
    expect(page.get_by_role("tab", name="Talk")).to_have_attribute("aria-selected", "true")


def test_a_link_opens_its_step_and_keeps_the_rest(app, open_page):
    page = open_page(f"{app}/?who=me%2Cyou&lesson=6", 1920, 1080)
    expect(page.locator(".lesson-count")).to_have_text(f"Step 6 of {len(STEPS)}")
    depth(page, 16)
    step_checked(page, STEPS[5])
    expect(page.locator("[data-who=patient] .talk-said")).to_have_count(0)  # nothing runs unasked
    can_be_read(page, 1920)
    jump(page, 7)
    assert "who=me%2Cyou" in page.url and page.url.count("lesson=7") == 1
    page.keyboard.press("Escape")
    expect(page.locator(".lesson")).to_be_hidden()
    assert "who=me%2Cyou" in page.url and "lesson=" not in page.url
    depth(page, 16)  # closing changes nothing of the page


def test_a_link_with_a_plan_of_its_own_is_left_alone(app, open_page):
    page = open_page(f"{app}/?plan=0%3A9&lesson=6")
    expect(page.locator(".lesson-count")).to_have_text(f"Step 6 of {len(STEPS)}")
    page.wait_for_timeout(800)
    assert len(order(page)) != 16
    expect(page.locator(".lesson-check")).to_be_hidden()


def test_keys_alone_walk_through_it(app, open_page):
    page = open_page(app, 1366, 768)
    page.get_by_role("button", name="Lesson", exact=True).focus()
    page.keyboard.press("Enter")
    for _ in range(3):
        page.keyboard.press("PageDown")
    expect(page.locator(".lesson h2")).to_have_text(STEPS[3].title)
    page.keyboard.press("PageUp")
    page.keyboard.press("PageDown")
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.do") == "act":
            break
    page.keyboard.press("Enter")
    depth(page, 10)
    step_checked(page, STEPS[3])
    page.keyboard.press("Escape")
    expect(page.locator(".lesson")).to_be_hidden()
    assert page.evaluate("document.activeElement.className").startswith("lesson-open")

    page.keyboard.press("Enter")  # it is where it was left
    step_checked(page, STEPS[3])
    can_be_read(page, 1366)


def test_it_can_be_read_where_there_is_little_room(app, open_page):
    """Where there is more, it is looked at in the tests above."""
    page = open_page(app, 390, 844)
    open_lesson(page)
    jump(page, 4)
    do_step(page)
    depth(page, 10)
    can_be_read(page, 390)
