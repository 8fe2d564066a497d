"""What people do on the page, for tests to say in a word."""

from __future__ import annotations

import re
from collections.abc import Iterator

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, expect

from surgery.lesson.course import STEPS


def layers(page: Page, strip: str):
    """The tiles of a strip."""
    return page.locator(f"[data-strip={strip}] .layer")


def order(page: Page) -> list[int]:
    """The source layers that the patient shows, in order."""
    tiles = layers(page, "patient")
    return [int(source) for source in tiles.evaluate_all("all => all.map(x => x.dataset.source)")]


def _middle(tile) -> tuple[float, float]:
    box = tile.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page: Page, start, end, end_x: float = 0.5) -> None:
    """Drag from one tile to another; `end_x` is where in it to let go, from 0 to 1."""
    end.scroll_into_view_if_needed()  # a strip may be wider than its room
    start.hover()  # once it stands still
    page.mouse.down()
    x, y = _middle(end)
    width = end.bounding_box()["width"]
    page.mouse.move(x + (end_x - 0.5) * width, y, steps=8)
    page.mouse.up()


def select(page: Page, first: int, last: int, strip: str = "patient") -> None:
    """Drag over a range of a strip."""
    page.keyboard.press("Escape")
    tiles = layers(page, strip)
    if first == last:
        tiles.nth(first).click()
    else:
        drag(page, tiles.nth(first), tiles.nth(last))
    expect(selected(page)).to_have_count(last - first + 1)
    expect(tiles.nth(first)).to_have_attribute("aria-selected", "true")
    expect(tiles.nth(last)).to_have_attribute("aria-selected", "true")


def selected(page: Page):
    """The tiles that are selected."""
    return page.locator(".layer[aria-selected=true]")


def depth(page: Page, count: int) -> None:
    """Wait until the patient has so many layers."""
    expect(layers(page, "patient")).to_have_count(count)


def plan_box(page: Page):
    """The box with the notation."""
    return page.locator(".strip-plan input")


def write_plan(page: Page, text: str) -> None:
    """Type a plan and press Enter."""
    plan_box(page).fill(text)
    plan_box(page).press("Enter")


def open_base(page: Page, spec: str) -> None:
    """Type a base's name and open it."""
    box = page.locator("#base input")
    box.fill(spec)
    box.press("Enter")
    page.locator("#open").click()


def tile_text(page: Page, name: str) -> str:
    """What a tile of numbers says."""
    tile = page.locator(".tile", has=page.locator(".tile-name", has_text=re.compile(f"^{name}$")))
    return tile.inner_text()


TEXT = (
    "The boat climbed each wave with patience and came down on the other side with a thump that "
    "shook the windows. Nobody spoke. An old man across from her had closed his eyes, and the "
    "child beside him counted the gulls aloud until the harbour was out of sight."
)


def own_text(page: Page, text: str = TEXT) -> None:
    """Have the X-ray measure on a short text; on another than other tests, nothing is known yet."""
    page.get_by_role("tab", name="X-ray").click()
    page.locator("#sample-kind input").click()
    page.get_by_role("option", name="your own text").click()
    page.locator("#sample-own textarea").fill(text)


def open_lesson(page: Page) -> None:
    """Open the lesson."""
    page.get_by_role("button", name="Lesson", exact=True).click()
    expect(page.locator(".lesson")).to_be_visible()


def jump(page: Page, number: int) -> None:
    """Go to a step of the lesson."""
    page.locator(".lesson-steps button").nth(number - 1).click()
    expect(page.locator(".lesson-count")).to_have_text(f"Step {number} of {len(STEPS)}")


def do_step(page: Page, seconds: int = 240) -> None:
    """Press the step's button and wait until its work is over."""
    page.locator(".lesson-act").click()
    expect(page.locator(".lesson [data-do=stop]")).to_be_hidden(timeout=1000 * seconds)
    expect(page.locator(".lesson-status.failed")).to_have_count(0)


def step_checked(page: Page, step) -> None:
    """The page's own number is the expected one, and is said to be."""
    expect(page.locator(".lesson-check.right")).to_have_text(
        f"✓{step.parameters:,} parameters, as expected"
    )
    expect(page.locator(".tile", has_text="Parameters").first).to_contain_text(
        f"{step.parameters:,}"
    )
    expect(plan_box(page)).to_have_value(step.plan)


def settled(page: Page) -> None:
    """Wait until nothing moves or fades any more."""
    page.wait_for_function("document.getAnimations().every(one => one.playState === 'finished')")


def both_schemes(page: Page) -> Iterator[str]:
    """The page in light colours, as it was opened, then in dark ones, its figures drawn again."""
    settled(page)
    yield "light"
    figures = "document.querySelectorAll('.plot:not(.empty) [data-drawn]')"
    drawn = f"[...{figures}].map(area => area.dataset.drawn)"
    before = page.evaluate(drawn)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.body.classList.contains('dark')")
    page.wait_for_function(f"before => {drawn}.every((n, i) => n !== before[i])", arg=before)
    settled(page)
    yield "dark"


# Only what is found leaves the browser: the rest of the report is long.
_AXE = """async (part) => (await axe.run(part, { resultTypes: ['violations'] })).violations
    .map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map(node => node.html) }))"""


def violations(page: Page, part: str = "html") -> list[dict]:
    """All that axe-core finds in a part of the page (a CSS selector), each with its rule's id, its
    impact and the nodes' HTML."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    return page.evaluate(_AXE, part)


def faults(page: Page, part: str = "html") -> list:
    """What axe-core finds that is serious."""
    return [
        (fault["id"], [html[:160] for html in fault["nodes"]])
        for fault in violations(page, part)
        if fault["impact"] in ("serious", "critical")
    ]
