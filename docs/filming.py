"""Film a page in headless Chromium: a visible pointer, captions, and an animated GIF of it all.

The page is the app's own, but time is edited: the pointer moves evenly, however long the browser
takes to draw. While the app works a picture lasts as long as it did, and one that doesn't change
`_REST` seconds at most. A machine too slow for this is shown faster than it is. `lapse` shows
a long job in a few seconds.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page

FPS = 12
CAPTION = 46  # pixels below the page
_REST = 0.8  # seconds
_COLOURS = 255  # of a GIF's 256; one stands for “as before”
_EXACT = 120  # of them

# The arrow's tip is at the mouse. Headless Chromium draws none of its own.
_OVERLAY = """
addEventListener('DOMContentLoaded', () => {
  const root = document.documentElement;
  const pointer = document.createElement('div');
  pointer.innerHTML = `<svg width="26" height="30" viewBox="0 0 26 30"><path fill="#111"
    stroke="#fff" stroke-width="2" stroke-linejoin="round" d="M2 2v21l5-5 4 9 4-2-4-9h8z"/></svg>`;
  pointer.style.cssText = 'position:fixed;left:-2px;top:-2px;z-index:2147483647;'
    + 'pointer-events:none;translate:-50px -50px;transform-origin:2px 2px';
  const caption = document.createElement('div');
  caption.id = 'film-caption';
  caption.style.cssText = 'position:fixed;left:0;right:0;bottom:0;height:HEIGHTpx;'
    + 'z-index:2147483646;background:#10151c;color:#fff;font:600 20px system-ui,sans-serif;'
    + 'display:flex;align-items:center;justify-content:center';
  for (const node of [pointer, caption]) node.setAttribute('aria-hidden', 'true');
  root.append(caption, pointer);
  const follow = (event) => {
    pointer.style.translate = `${event.clientX}px ${event.clientY}px`;
    pointer.style.scale = event.buttons ? '0.8' : '1';
  };
  for (const name of ['pointermove', 'pointerdown', 'pointerup']) {
    addEventListener(name, follow, true);
  }
});
""".replace("HEIGHT", str(CAPTION))


@dataclass
class Frame:
    """A picture as PNG, and how many seconds it is shown."""

    png: bytes
    seconds: float


class Film:
    """Acts on a page, and takes pictures of it meanwhile."""

    def __init__(self, page: Page) -> None:
        """Call it before the page is loaded."""
        page.add_init_script(_OVERLAY)
        self._page, self._at = page, (0.0, 0.0)
        self._devtools = page.context.new_cdp_session(page)
        self.frames: list[Frame] = []

    def caption(self, text: str) -> None:
        """Show a line below the page from the next picture on."""
        self._page.evaluate(
            "text => { document.querySelector('#film-caption').textContent = text; }", text
        )

    def place(self, x: float, y: float) -> None:
        """Put the pointer somewhere, off camera."""
        self._page.mouse.move(x, y)
        self._at = x, y

    # ---------------------------------------------------------------- acting

    def move(self, target: Locator, seconds: float = 0.8) -> None:
        """Move the pointer to the middle of an element, slowly at both ends."""
        box = target.bounding_box()
        if box is None:
            raise ValueError(f"{target} isn't on the page.")
        (x0, y0), x1, y1 = self._at, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        steps = max(1, round(FPS * seconds))
        for step in range(1, steps + 1):
            t = step / steps
            t = t * t * (3 - 2 * t)
            self.place(x0 + t * (x1 - x0), y0 + t * (y1 - y0))
            self._take(1 / FPS)

    def press(self) -> None:
        """Press the mouse button."""
        self._page.mouse.down()
        self._take(1 / FPS)

    def release(self) -> None:
        """Release the mouse button."""
        self._page.mouse.up()
        self._take(1 / FPS)

    def click(self, target: Locator, seconds: float = 0.8) -> None:
        """Move to an element and click."""
        self.move(target, seconds)
        self._take(2 / FPS)
        self.press()
        self.release()

    # ---------------------------------------------------------------- watching

    def hold(self, seconds: float) -> None:
        """Show the page as it is for a while."""
        self._take(seconds)

    def watch(
        self, done: Callable[[], bool], at_most: float = math.inf, timeout: float = 600
    ) -> None:
        """Film the app at work until `done`, at its own speed but for waits, or faster where that
        would take more than `at_most` seconds."""
        self.frames += at_own_speed(self._pictures(done, timeout), at_most)

    def lapse(self, done: Callable[[], bool], seconds: float, timeout: float = 1800) -> None:
        """Film the app at work until `done`, and show all of it in so many seconds."""
        taken = self._pictures(done, timeout, pause=1)
        self.frames += evenly(taken, seconds)

    def _pictures(
        self, done: Callable[[], bool], timeout: float, pause: float = 1 / FPS
    ) -> list[tuple[float, bytes]]:
        """Pictures with the times at which they were taken; the last one is of the end."""
        taken, began = [], time.monotonic()
        while True:
            ended = done()
            taken.append((time.monotonic(), self._picture()))
            if ended:
                return taken
            if time.monotonic() - began > timeout:
                raise TimeoutError(f"The app wasn't done after {timeout} seconds.")
            self._page.wait_for_timeout(1000 * pause)

    def _take(self, seconds: float) -> None:
        self.frames.append(Frame(self._picture(), seconds))

    def _picture(self) -> bytes:
        # Playwright's own `screenshot` takes several times as long.
        options = {"format": "png", "optimizeForSpeed": True}
        return base64.b64decode(self._devtools.send("Page.captureScreenshot", options)["data"])


def at_own_speed(taken: Sequence[tuple[float, bytes]], at_most: float = math.inf) -> list[Frame]:
    """Frames of pictures that were taken at these times, equal ones in a row as one frame. Where
    all of them would last longer than `at_most` seconds they are faster, and some are left out."""
    frames: list[Frame] = []
    ends = [moment for moment, _ in taken[1:]] + [taken[-1][0] + 1 / FPS]
    for (moment, png), end in zip(taken, ends, strict=True):
        if not frames or frames[-1].png != png:
            frames.append(Frame(png, 0))
        frames[-1].seconds = min(_REST, frames[-1].seconds + end - moment)
    faster = max(1, sum(frame.seconds for frame in frames) / at_most)
    shown = [Frame(frame.png, frame.seconds / faster) for frame in frames]
    return shown if faster == 1 else thinned(shown)


def thinned(frames: Sequence[Frame]) -> list[Frame]:
    """The same without those that are there for less than a frame's time. The last one stays."""
    left: list[Frame] = []
    for frame in frames:
        if left and left[-1].seconds < 1 / FPS:
            left[-1] = Frame(frame.png, left[-1].seconds + frame.seconds)
        else:
            left.append(frame)
    return left


def evenly(taken: Sequence[tuple[float, bytes]], seconds: float) -> list[Frame]:
    """Frames that show these pictures in so many seconds, some of them left out if need be."""
    count = min(len(taken), round(FPS * seconds))
    chosen = [taken[round(i)] for i in np.linspace(0, len(taken) - 1, count)]
    return [Frame(png, seconds / count) for _, png in chosen]


def save_gif(frames: Sequence[Frame], path: Path) -> None:
    """Write an animated GIF that repeats for ever. All frames have one palette, so that what stays
    the same on the page doesn't flicker, and isn't stored again."""
    colours, areas = _colours(frames)
    palette = common_palette(colours, areas)
    # Pillow's own matching is off by several shades.
    apart = _rgb(colours).astype(int)[:, None] - palette.astype(int)
    nearest = (apart**2).sum(axis=-1).argmin(axis=-1).astype(np.uint8)
    drawn = []
    for frame in frames:
        image = Image.fromarray(nearest[np.searchsorted(colours, _packed(frame))])
        image.putpalette(palette.ravel().tolist())
        drawn.append(image)
    drawn[0].save(
        path,
        save_all=True,
        append_images=drawn[1:],
        duration=_milliseconds(frames),
        loop=0,
        transparency=_COLOURS,
    )


def _milliseconds(frames: Sequence[Frame]) -> list[int]:
    """Whole hundredths, as a GIF has them; what rounding leaves over goes to the next frame."""
    ends = np.cumsum([frame.seconds for frame in frames])
    return (10 * np.diff(np.round(100 * ends), prepend=0)).astype(int).tolist()


# ---------------------------------------------------------------- colours, packed into numbers


def common_palette(colours: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Colours that suit all pictures, (n, 3): those of the largest areas as they are, the others,
    mostly edges of letters, in groups. `areas` are in pixels, of each of the packed `colours`."""
    order = np.argsort(-areas, kind="stable")
    exact, others = order[:_EXACT], order[_EXACT:]
    if len(order) <= _COLOURS:
        return _rgb(colours[order])
    # The root, so that some more grey pixels don't outweigh a colour of its own.
    values = _rgb(np.repeat(colours[others], np.sqrt(areas[others]).astype(int)))
    groups = Image.fromarray(values[None]).quantize(_COLOURS - _EXACT, kmeans=3)
    return np.concatenate([_rgb(colours[exact]), np.reshape(groups.getpalette(), (-1, 3))])


def _colours(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """All colours in the frames, in order, and how many pixels have each."""
    counted = [np.unique(_packed(frame), return_counts=True) for frame in frames]
    colours, place = np.unique(np.concatenate([one for one, _ in counted]), return_inverse=True)
    areas = np.bincount(place, weights=np.concatenate([counts for _, counts in counted]))
    return colours, areas


def _packed(frame: Frame) -> np.ndarray:
    rgb = np.asarray(Image.open(BytesIO(frame.png)).convert("RGB"), dtype=np.uint32)
    return rgb @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)


def _rgb(packed: np.ndarray) -> np.ndarray:
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1).astype(np.uint8)
