"""What people do on the page, for tests to say in a word."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect


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
    page.mouse.move(*_middle(start))
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
