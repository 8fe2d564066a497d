"""A page in windows of several sizes: opening it takes far longer than laying it out anew."""

from __future__ import annotations

from hands import settled
from playwright.sync_api import Page

# Each figure with its width and the drawing that it shows: another width has it drawn again.
_NOTE_FIGURES = """() => {
    const areas = [...document.querySelectorAll('.plot:not(.empty) [data-drawn]')];
    window.figuresBefore = areas.map(area => [area, area.clientWidth, area.dataset.drawn]);
}"""
_DRAWN_AGAIN = """() => window.figuresBefore.every(([area, width, drawn]) =>
    [0, width].includes(area.clientWidth) || area.dataset.drawn !== drawn)"""
_TWO_FRAMES = """() => new Promise(
    done => requestAnimationFrame(() => requestAnimationFrame(done)))"""


def resize(page: Page, width: int, height: int) -> None:
    """Give the window another size, and wait until all that it changes has been drawn."""
    page.evaluate(_NOTE_FIGURES)
    page.set_viewport_size({"width": width, "height": height})
    page.evaluate(_TWO_FRAMES)  # tabs that have no room move into a menu by then
    page.wait_for_function(_DRAWN_AGAIN)
    settled(page)
