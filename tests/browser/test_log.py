"""The log in a browser: measure, name, pin, compare two plans and open either."""

from hands import both_schemes, depth, faults, plan_box, write_plan
from playwright.sync_api import Page, expect
from window_sizes import resize


def measure_two_cuts(page: Page) -> None:
    """Have the panel show a base, its two cuts and their measurements."""
    depth(page, 6)
    page.get_by_role("tab", name="Log").click()
    expect(page.locator(".log-none")).to_be_visible()
    expect(page.locator(".log-none")).to_contain_text("Press Measure this plan to start")
    for plan, layers, rows in (("0:2, 4:6", 4, 2), ("0:2, 5", 3, 3)):
        write_plan(page, plan)
        depth(page, layers)
        page.locator("#log-start").click()
        expect(plans(page)).to_have_count(rows, timeout=120_000)
    expect(page.locator(".log-none")).to_be_hidden()


def plans(page: Page):
    return page.locator("#log-table .log > .log-scroll .log-plan")


def two_plans_are_compared_and_either_is_opened(page: Page) -> None:
    page.get_by_label("Compare as A: 0:6").click()
    page.get_by_label("Compare as B: 0:2, 4:6").click()
    pair = page.locator(".log-pair")
    expect(pair).to_contain_text("B has 2 layers fewer")
    expect(pair).to_contain_text("nats per token")
    pair.get_by_role("button", name="Open B").click()
    depth(page, 4)
    expect(plan_box(page)).to_have_value("0:2, 4:6")
    pair.get_by_role("button", name="Open A").click()
    depth(page, 6)
    page.get_by_label("Compare as B: 0:2, 4:6").click()
    expect(pair).to_contain_text("Choose B in a row below.")


def a_plan_is_named_and_pinned(page: Page) -> None:
    expect(plans(page)).to_have_text(["0:2, 5", "0:6", "0:2, 4:6"])
    name = page.get_by_label("Name of the plan 0:2, 4:6")
    name.fill("<b>four</b>")
    name.press("Enter")
    pin = page.get_by_label("Pin 0:2, 4:6")
    pin.focus()
    page.keyboard.press("Enter")
    expect(plans(page).first).to_have_text("0:2, 4:6")
    expect(pin).to_have_attribute("aria-pressed", "true")
    expect(pin).to_be_focused()  # though the rows were drawn again
    expect(name).to_have_value("<b>four</b>")
    assert page.locator("#log-table b", has_text="four").count() == 0


def a_name_that_is_typed_survives_a_redraw(page: Page) -> None:
    write_plan(page, "0:4")
    depth(page, 4)
    name = page.get_by_label("Name of the plan 0:6")
    name.press_sequentially("mine")
    page.locator("#log-start").evaluate("button => button.click()")  # the focus stays
    points = page.locator("#log-picture .scatterlayer .point")
    expect(points).to_have_count(4, timeout=120_000)  # the table came with it
    expect(name).to_have_value("mine")
    expect(name).to_be_focused()
    page.keyboard.press("Tab")
    expect(plans(page)).to_have_count(4)
    expect(name).to_have_value("mine")


def its_columns_fit_and_everyone_can_read_it(page: Page) -> None:
    sizes = [(390, 844), (1366, 768)]
    rows = page.locator(".log > .log-scroll")
    for scheme in both_schemes(page):
        # In the dark, colours alone differ, and those don't depend on the size.
        for width, height in sizes if scheme == "light" else sizes[-1:]:
            resize(page, width, height)
            assert rows.evaluate("node => node.scrollWidth <= node.clientWidth")
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert not faults(page, "#panels")  # other tests read what is around them


def test_plans_are_compared_named_and_pinned_and_everyone_can_read_them(
    app, open_page, tiny_folder
):
    page = open_page(f"{app}/?base={tiny_folder('llama')}")
    measure_two_cuts(page)
    two_plans_are_compared_and_either_is_opened(page)
    a_plan_is_named_and_pinned(page)
    a_name_that_is_typed_survives_a_redraw(page)
    its_columns_fit_and_everyone_can_read_it(page)
