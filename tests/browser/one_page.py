"""One page for the tests of a file: to open one takes longer than most of them do on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hands import depth, layers, open_base, plan_box, selected, write_plan
from playwright.sync_api import Page, expect
from watched_page import WatchedPage

_WHOLE = """count => {
  const tiles = [...document.querySelectorAll('[data-strip=patient] .layer')];
  return tiles.length === count && tiles.every((tile, i) => tile.dataset.source === String(i));
}"""
DEPTH = 30  # of the base that the app opens


class OnePage:
    """A page that stays open. Errors on it fail the test that was using it."""

    def __init__(self, page: Page, url: str, width: int, height: int) -> None:
        self.page = page
        self._size = {"width": width, "height": height}
        self._watched = WatchedPage(page, url)
        page.goto(url)
        # The app may have just been started.
        expect(layers(page, "patient").first).to_be_visible(timeout=120_000)

    def visit(self, spec: str = "bundled", count: int = DEPTH) -> Iterator[Page]:
        """The page as it was opened, on a base of `count` layers; errors fail the test."""
        page = self.page
        if page.viewport_size != self._size:
            page.set_viewport_size(self._size)
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        page.wait_for_function("!document.body.classList.contains('dark')")
        page.mouse.move(0, 0)
        if layers(page, "base").count() != count:
            open_base(page, spec)
            expect(layers(page, "base")).to_have_count(count)
        self.start_over(count)
        depth(page, count)
        yield page
        problems, self._watched.problems = self._watched.problems, []
        assert not problems

    def start_over(self, count: int = DEPTH) -> None:
        """Show the whole plan of so many layers, with nothing wrong, open or selected."""
        page, plan = self.page, f"0:{count}"
        wrong = page.locator(".strip-error").is_visible()
        if wrong or plan_box(page).input_value() != plan:
            write_plan(page, plan)
            page.wait_for_function(
                _WHOLE, arg=count
            )  # Escape would take the plan back before its answer
        page.keyboard.press("Escape")  # of a dialog
        page.locator("[data-strip=patient]").focus()
        for _ in range(3):  # of a menu, of what is in a layer, and of the selection
            page.keyboard.press("Escape")
        expect(selected(page)).to_have_count(0)
        page.evaluate("document.activeElement.blur()")
        expect(plan_box(page)).to_have_value(plan)
        expect(page.locator(".strip-error")).to_be_hidden()

    def leave(self) -> None:
        """Watch it no more."""
        self._watched.leave()


@contextmanager
def one_page(
    tabs, url: str, width: int = 1600, height: int = 900, phone: bool = False
) -> Iterator[OnePage]:
    """Open the page at an address until the block ends."""
    page = tabs.take(width, height, "light", phone)
    opened = OnePage(page, url, width, height)
    yield opened
    opened.leave()
    tabs.give_back(page, phone)
