"""Make the README's pictures of the page, from the app at work on the bundled model.

python -m docs.make_pictures [pictures] [film]

It needs what tests/requirements.txt installs, and Chromium. The film takes some minutes, because it
trains. All that it shows, the app computed while it was filmed; how time is edited is said in
docs/filming.py. Look at every picture before you commit it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from benchmarks._app import serving
from benchmarks._chromium import CHROMIUM, FLAGS
from surgery.io.cache_folder import cache_folder
from surgery.sources.bundled import NAME

from .filming import CAPTION, Film, save_gif

IMAGES = Path(__file__).parent / "images"
SIZE = (1600, 900)
FILM = IMAGES / "edit.gif"
FILM_SIZE = (1366, 722 + CAPTION)
PLAN = "0:13, 17:26, 22:30"
PROMPT = "Once upon a time there was a"
TOKENS = 40  # of each text
MINUTES = 5  # of healing
_SLOW = 600_000  # milliseconds for what computes

expect.set_options(timeout=30_000)


def page_picture(scheme: str) -> Path:
    """Where the page's picture in “light” or “dark” colours is."""
    return IMAGES / f"page-{scheme}.png"


# ---------------------------------------------------------------- the page's parts


def layer(page: Page, number: int) -> Locator:
    """A layer's tile in the patient."""
    return page.locator(f"[data-strip=patient] .layer[data-source='{number}']")


def tab(page: Page, name: str) -> Locator:
    """A panel's tab."""
    return page.get_by_role("tab", name=name, exact=True)


def opened(page: Page, url: str) -> None:
    """Open the page, and wait until the base is loaded and measured."""
    page.goto(f"{url}/?{urlencode({'prompt': PROMPT, 'tokens': TOKENS})}")
    expect(page.locator("[data-strip=patient] .layer")).to_have_count(30, timeout=_SLOW)
    page.wait_for_function(_MEASURED, timeout=_SLOW)


_MEASURED = """() => {
  const box = document.querySelector('.quality');
  return box?.querySelector('strong').textContent && !box.classList.contains('stale')
    && box.getAttribute('aria-busy') === 'false';
}"""
_BEGUN = "() => document.querySelector('.talk-caret')"
_SPOKEN = """() => document.querySelector('[data-who=patient] [title*=probability]')
  && !document.querySelector('.talk-caret')"""


def holds(page: Page, *conditions: str) -> Callable[[], bool]:
    """A function: whether all of these hold in the page."""
    return lambda: all(page.evaluate(condition) for condition in conditions)


# ---------------------------------------------------------------- what is shown


def take_pictures(browser: Browser, url: str) -> None:
    """The page with a plan, measured, and both texts."""
    for scheme in ("light", "dark"):
        with a_page(browser, SIZE, scheme) as page:
            opened(page, url)
            box = page.locator(".strip-plan input")
            box.fill(PLAN)
            box.press("Enter")
            box.blur()
            page.wait_for_function(_SPOKEN, timeout=_SLOW)
            page.wait_for_function(_MEASURED, timeout=_SLOW)
            page.mouse.move(0, 0)
            page.screenshot(path=page_picture(scheme), animations="disabled")


def make_film(browser: Browser, url: str) -> None:
    """Layers are dropped, the loss is seen and heard, and the patient is healed."""
    with a_page(browser, FILM_SIZE, "light") as page:
        film = Film(page)
        opened(page, url)
        tab(page, "Heal").click()
        minutes = page.locator("#heal-minutes input")
        minutes.fill(str(MINUTES))
        minutes.press("Tab")
        tab(page, "Talk").click()
        film.place(760, 560)

        film.caption("Drag over layers of the model …")
        film.hold(0.8)
        film.move(layer(page, 13), 0.7)
        film.press()
        film.move(layer(page, 16), 1)
        film.release()
        film.caption("… and drop them")
        film.click(page.locator(".strip-tools [data-op=drop]"))
        expect(page.locator("[data-strip=patient] .layer")).to_have_count(26)
        film.click(page.locator(".strip-bar [data-select=none]"), 0.5)
        film.caption("What it costs is measured, and both models answer")
        film.watch(holds(page, _SPOKEN, _MEASURED), at_most=4)
        film.hold(1.2)

        film.caption("Heal: train the layers next to the cut")
        film.click(tab(page, "Heal"), 0.6)
        film.click(page.locator("#heal"), 0.5)
        film.caption(f"Heal: {MINUTES} minutes of training, shortened")
        film.lapse(_healed(page), 3)
        film.watch(holds(page, _MEASURED), at_most=1)
        film.hold(1.2)

        film.caption("The healed patient answers")
        film.click(tab(page, "Talk"), 0.6)
        film.click(page.locator("#stream"), 0.5)
        film.watch(holds(page, _BEGUN), at_most=0.6)
        film.watch(holds(page, _SPOKEN), at_most=2.5)
        film.hold(2)
    save_gif(film.frames, FILM)


def _healed(page: Page) -> Callable[[], bool]:
    status = page.locator("#heal-status")
    return lambda: "Healed." in status.inner_text()


# ---------------------------------------------------------------- the app


@contextmanager
def a_page(browser: Browser, size: tuple[int, int], scheme: str) -> Iterator[Page]:
    """An empty page of this size. Errors on it end the script."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
    )
    errors: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    if errors:
        sys.exit("\n".join(errors))


@contextmanager
def empty_cache() -> Iterator[str]:
    """A cache for the app with the bundled model alone: with the user's, the app would know already
    what it is filmed measuring."""
    model = cache_folder() / NAME
    with tempfile.TemporaryDirectory() as folder:
        if model.is_dir():
            (Path(folder) / NAME).symlink_to(model, target_is_directory=True)
        os.environ["LAYER_SURGERY_CACHE"] = folder
        yield folder


def main() -> None:
    """Make what is named, or everything."""
    makers = {"pictures": take_pictures, "film": make_film}
    names = sys.argv[1:] or list(makers)
    if unknown := set(names) - set(makers):
        sys.exit(f"{', '.join(sorted(unknown))}: choose from {', '.join(makers)}.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name in names:
            with empty_cache() as folder, serving(folder, []) as url:
                makers[name](browser, url)
        browser.close()


if __name__ == "__main__":
    main()
