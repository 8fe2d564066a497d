"""The page in its address: written as one works, restored for whoever opens it."""

from urllib.parse import parse_qs, urlsplit

from hands import depth, faults, open_base, plan_box, write_plan
from playwright.sync_api import expect


def said(page) -> dict:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def test_what_is_done_stands_in_the_address_and_comes_back(app, open_page):
    """Everyone can read the sheet that shows it, in a wide window and in a narrow, dark one."""
    page = open_page(f"{app}/?mine=1")
    write_plan(page, "0:13, 17:30")
    depth(page, 26)
    page.locator("#prompt textarea").fill("Salt & pepper, 100 %")
    page.wait_for_function("location.search.includes('pepper')")
    page.wait_for_function("location.search.includes('plan=')")
    assert said(page) == {
        "base": "bundled",
        "plan": "0:13, 17:30",
        "prompt": "Salt & pepper, 100 %",
        "mine": "1",
    }
    page.get_by_role("button", name="Link").click()
    expect(page.locator("#link-address")).to_have_value(page.url)
    expect(page.locator(".link-code")).to_be_visible()
    assert page.locator(".link-code path").get_attribute("d").startswith("M4 4h1v1h-1z")
    sheet_can_be_read(page, 1600)

    other = open_page(page.url, 390, 844, scheme="dark")
    depth(other, 26)
    expect(plan_box(other)).to_have_value("0:13, 17:30")
    expect(other.locator("#prompt textarea")).to_have_value("Salt & pepper, 100 %")
    write_plan(other, "0:5")
    depth(other, 5)
    depth(page, 26)  # a copy of one's own
    other.get_by_role("button", name="Link").click()
    expect(other.locator(".link-code")).to_be_visible()
    sheet_can_be_read(other, 390)


def sheet_can_be_read(page, width):
    """Nothing sticks out and axe-core finds no fault; Escape closes the sheet."""
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert not faults(page)
    page.keyboard.press("Escape")
    expect(page.locator(".link-sheet")).to_be_hidden()


def test_settings_come_from_a_link_and_nonsense_does_not(app, open_page):
    """A plan that is none is said to be none, as text."""
    settings = "tokens=128&greedy=0&seed=soon&temperature=99&chat=maybe"
    page = open_page(f"{app}/?{settings}&plan=<img src=x onerror=alert(1)>")
    expect(page.locator(".strip-error")).to_contain_text("<img src=x")
    assert page.locator("img[src=x]").count() == 0
    depth(page, 30)
    page.locator(".talk-settings button").first.click()
    expect(page.get_by_label("number input for Length")).to_have_value("128")
    expect(page.get_by_label("Greedy")).not_to_be_checked()
    expect(page.get_by_label("Seed")).to_have_value("0")
    expect(page.get_by_label("Apply chat template")).not_to_be_checked()


def test_the_last_plans_are_kept_in_the_browser_and_another_base_by_its_name(
    page, app, tiny_folder
):
    write_plan(page, "0:7")
    depth(page, 7)
    page.wait_for_function("localStorage.getItem('layer-surgery-plans')?.includes('0:7')")
    spec = str(tiny_folder("llama"))
    open_base(page, spec)
    depth(page, 6)
    page.wait_for_function("location.search.includes('llama')")
    assert said(page)["base"] == spec and "plan" not in said(page)

    page.goto(app)
    depth(page, 30)
    page.get_by_role("button", name="Link").click()
    page.locator(".link-plans a", has_text="0:7").click()
    depth(page, 7)
    page.get_by_role("button", name="Link").click()
    page.get_by_role("button", name="Clear list").click()
    expect(page.locator(".link-plans li")).to_have_count(0)
