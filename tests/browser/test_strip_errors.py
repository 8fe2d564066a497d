"""Errors on the strip, undo, and what can only fail."""

import pytest
from hands import depth, open_base, plan_box, select, tile_text, write_plan
from playwright.sync_api import expect
from window_sizes import resize


@pytest.fixture
def page(opened):
    """The page of all tests here, as it was opened."""
    yield from opened.visit()


def test_only_a_wrong_plan_marks_the_plan_s_box_and_only_while_it_is_there(page):
    select(page, 3, 3, "base")
    page.keyboard.press("Delete")
    depth(page, 29)
    page.keyboard.press("d")  # of what was dropped
    error = page.get_by_role("alert")
    expect(error).to_contain_text("restore them first")
    expect(plan_box(page)).to_have_attribute("aria-invalid", "false")
    write_plan(page, "0:99")
    expect(error).to_contain_text("0:99")
    expect(plan_box(page)).to_have_attribute("aria-invalid", "true")
    plan_box(page).fill("0:9")
    expect(plan_box(page)).to_have_attribute("aria-invalid", "false")
    expect(error).to_be_hidden()


def test_an_error_moves_nothing(opened, page):
    rows = [page.locator(".strip-stage"), page.locator("#tiles"), page.locator("#panels")]
    about = page.locator("#about p")
    expect(about).to_contain_text("Llama")

    def places() -> list[dict]:
        return [{k: round(v) for k, v in row.bounding_box().items()} for row in rows]

    for width, height in ((1920, 1080), (1366, 768), (390, 844)):
        resize(page, width, height)
        opened.start_over()
        before = places()
        write_plan(page, "0:99, " + "1, " * 60)
        expect(page.get_by_role("alert")).to_be_visible()
        assert places() == before, width
        open_base(page, "no/such/model/" + "at/all/" * 20)
        expect(page.locator("#about .failed p")).to_be_visible()
        assert places() == before, width
        open_base(page, "bundled")  # as later tests find it
        expect(about).to_contain_text("Llama")


def test_what_can_only_fail_is_not_offered(page):
    select(page, 13, 16)
    page.keyboard.press("Delete")
    depth(page, 26)
    tools = page.get_by_role("toolbar", name="Operations on the selected layers")
    for name in ("Drop", "Repeat", "Move left", "Move right", "Reverse"):
        expect(tools.get_by_role("button", name=name)).to_be_disabled()
    expect(page.get_by_label("Initialise the selected layers as")).to_be_disabled()
    expect(tools.get_by_role("button", name="Restore")).to_be_enabled()
    page.keyboard.press("Escape")
    expect(tools).to_be_hidden()


def test_undo_works_anywhere_but_in_a_text(page):
    write_plan(page, "0:10")
    depth(page, 10)
    page.locator("#tiles").click()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Control+z")
    depth(page, 30)
    page.get_by_role("tab", name="X-ray").focus()
    page.keyboard.press("Control+y")
    depth(page, 10)
    prompt = page.locator("#prompt textarea")
    prompt.fill("Once")
    prompt.press("End")
    prompt.press("x")
    prompt.press("Control+z")
    page.get_by_role("tab", name="X-ray").focus()
    page.keyboard.press("Control+Shift+z")  # there is nothing to redo: the plan was not undone
    depth(page, 10)


def test_quick_undos_leave_what_is_typed_next(page):
    select(page, 0, 0)
    for _ in range(6):
        page.keyboard.press("d")
    depth(page, 36)
    for _ in range(6):
        page.keyboard.press("Control+z")
    plan_box(page).focus()
    plan_box(page).fill("0:7")
    depth(page, 30)
    expect(plan_box(page)).to_have_value("0:7")
    plan_box(page).press("Enter")
    depth(page, 7)
    # The same with the text on its way before the last undo is answered.
    select(page, 0, 0)
    for _ in range(4):
        page.keyboard.press("d")
    for _ in range(4):
        page.keyboard.press("Control+z")
    write_plan(page, "0:8")
    depth(page, 8)
    expect(plan_box(page)).to_have_value("0:8")


def test_layers_of_the_base_move_from_where_they_stand_in_the_patient(page):
    write_plan(page, "20:30, 0:10")
    depth(page, 20)
    select(page, 22, 23, "base")
    page.keyboard.press("Alt+ArrowRight")
    expect(plan_box(page)).to_have_value("20:22, 24, 22:24, 25:30, 0:10")


def test_an_answer_that_comes_late_changes_nothing(page):
    held = []
    page.route("**/queue/data*", lambda route: held.append(route))
    for _ in range(60):  # the page may still be busy opening it
        page.locator("#open").click()  # the same base again, which keeps the plan
        page.wait_for_timeout(1000)
        if held:
            break
    else:
        raise AssertionError("The page never asked for the answer.")
    page.wait_for_timeout(1000)  # the answer is made, of the whole plan, and waits
    write_plan(page, "0:13, 17:30")
    depth(page, 26)
    for route in held:
        route.continue_()
    page.unroute("**/queue/data*")
    page.wait_for_timeout(2000)
    depth(page, 26)
    assert "26" in tile_text(page, "Layers")
    assert "plan=0" in page.url
