"""The page in its address: written as one works, restored for whoever opens it."""

from urllib.parse import parse_qs, urlsplit

from hands import depth, faults, open_base, plan_box, write_plan
from playwright.sync_api import expect


def said(page) -> dict:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def test_what_is_done_stands_in_the_address_and_comes_back(app, open_page):
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

    other = open_page(page.url)
    depth(other, 26)
    expect(plan_box(other)).to_have_value("0:13, 17:30")
    expect(other.locator("#prompt textarea")).to_have_value("Salt & pepper, 100 %")
    write_plan(other, "0:5")
    depth(other, 5)
    depth(page, 26)  # a copy of one's own


def test_settings_come_from_a_link_and_nonsense_does_not(app, open_page):
    page = open_page(f"{app}/?tokens=128&greedy=0&seed=soon&temperature=99&plan=0:3&chat=maybe")
    depth(page, 3)
    page.locator(".talk-settings button").first.click()
    expect(page.get_by_label("number input for Length")).to_have_value("128")
    expect(page.get_by_label("Greedy")).not_to_be_checked()
    expect(page.get_by_label("Seed")).to_have_value("0")
    expect(page.get_by_label("Apply chat template")).not_to_be_checked()


def test_a_link_to_a_plan_that_is_none_says_so(app, open_page):
    page = open_page(f"{app}/?plan=<img src=x onerror=alert(1)>")
    expect(page.locator(".strip-error")).to_contain_text("<img src=x")
    assert page.locator("img[src=x]").count() == 0
    depth(page, 30)


def test_the_last_plans_are_kept_in_the_browser(page, app):
    write_plan(page, "0:7")
    depth(page, 7)
    page.wait_for_function("localStorage.getItem('layer-surgery-plans')?.includes('0:7')")
    page.goto(app)
    depth(page, 30)
    page.get_by_role("button", name="Link").click()
    page.locator(".link-plans a", has_text="0:7").click()
    depth(page, 7)
    page.get_by_role("button", name="Link").click()
    page.get_by_role("button", name="Clear list").click()
    expect(page.locator(".link-plans li")).to_have_count(0)


def test_another_base_is_in_the_link_by_its_name(page, tiny_folder):
    spec = str(tiny_folder("llama"))
    open_base(page, spec)
    depth(page, 6)
    page.wait_for_function("location.search.includes('llama')")
    assert said(page)["base"] == spec and "plan" not in said(page)


def test_everyone_can_read_the_sheet(app, open_page):
    for width, scheme in ((1600, "light"), (390, "dark")):
        page = open_page(app, width, 844, scheme=scheme)
        write_plan(page, "0:9")
        depth(page, 9)
        page.get_by_role("button", name="Link").click()
        expect(page.locator(".link-code")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert not faults(page)
        page.keyboard.press("Escape")
        expect(page.locator(".link-sheet")).to_be_hidden()
