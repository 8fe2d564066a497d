"""How long it takes from `python app.py` to the first useful picture: the base's layers, drawn.

Each start is a process of its own with everything cached; a Chromium that is open already goes to
the page as soon as the server answers. For comparison, what importing alone takes: Gradio as it
comes, and the page as `app.py` imports it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import psutil
from playwright.sync_api import Browser, sync_playwright

from ._app import ROOT, serving
from ._chromium import CHROMIUM, FLAGS

# The page itself notes the frame in which a thing is there first: looking from outside, every half
# a second, is too coarse.
NOTED = """
window.reached = {};
const sought = {layers: "[data-strip=base] .layer", numbers: ".tile-name"};
new MutationObserver(() => {
  for (const [name, where] of Object.entries(sought)) {
    if (!(name in window.reached) && document.querySelector(where)) {
      window.reached[name] = null;
      requestAnimationFrame(() => { window.reached[name] = Date.now() / 1000; });
    }
  }
}).observe(document, {subtree: true, childList: true});
"""
IMPORTS = {
    "a process that imports Gradio and ends": "import gradio",
    "a process that imports the page and ends": (
        "from components.gradio_compat import skip_stubs; skip_stubs.skip()\nimport components.page"
    ),
}


def importing(code: str) -> float:
    """Seconds for a process that does this alone."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return time.perf_counter() - began


def start(browser: Browser, folder: str, options: list[str]) -> dict[str, float]:
    """Seconds from the start of one process to each phase."""
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    page = context.new_page()
    page.add_init_script(NOTED)
    reached = {}
    began = time.time()
    try:
        with serving(folder, options) as url:
            reached["the server answers"] = time.time() - began
            page.goto(url, wait_until="commit")
            page.wait_for_function(
                "window.reached.layers && window.reached.numbers", timeout=60_000
            )
            seen = page.evaluate("window.reached")
            reached["the layers are drawn"] = seen["layers"] - began
            reached["the numbers are drawn"] = seen["numbers"] - began
    finally:
        context.close()
    return reached


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    options, others = parser.parse_known_args()
    taken: dict[str, list[float]] = {}
    print(f"{os.cpu_count()} processors, load before {psutil.getloadavg()[0]:.1f}")
    with (
        sync_playwright() as playwright,
        tempfile.TemporaryDirectory() as folder,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        start(browser, folder, others)  # warms every cache
        for _ in range(options.times):
            result = {name: importing(code) for name, code in IMPORTS.items()}
            for phase, seconds in (result | start(browser, folder, others)).items():
                taken.setdefault(phase, []).append(seconds)
        browser.close()
    print(f"{'seconds, of ' + str(options.times) + ' starts':44s} {'median':>7s} {'best':>7s}")
    for phase, seconds in taken.items():
        print(f"{phase:44s} {statistics.median(seconds):7.2f} {min(seconds):7.2f}")


if __name__ == "__main__":
    main()
