"""How long it takes from an edit to the first number of the plan's quality, and to the last.

Each edit is a plan that was never measured, typed into the page in a Chromium; the page notes when
a number of that plan is there. Beside it: an undo, whose number is known, and how long an edit
takes to be answered while another plan is measured.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable

import psutil
from playwright.sync_api import Page, sync_playwright

from ._app import serving
from ._chromium import CHROMIUM, FLAGS

NOTED = """
window.reached = null;
window.begin = () => { window.reached = { begun: performance.now() }; };
addEventListener('DOMContentLoaded', () => new MutationObserver(() => {
  const box = document.querySelector('.quality'), reached = window.reached;
  if (!box || !reached || box.classList.contains('stale')) return;
  if (box.dataset.plan === reached.before || !box.querySelector('strong').textContent) return;
  const since = () => (performance.now() - reached.begun) / 1000;
  reached.first ??= since();
  if (box.getAttribute('aria-busy') === 'false') reached.last ??= since();
}).observe(document.body, { subtree: true, childList: true, attributes: true }));
document.addEventListener('plan-shown', () => {
  const reached = window.reached;
  if (reached) reached.answered ??= (performance.now() - reached.begun) / 1000;
});
"""


def seconds(page: Page, act: Callable[[], None], until: str = "last") -> dict[str, float]:
    """Seconds from what `act` does until the edit is answered, to the new plan's first number and
    to its last."""
    before = page.locator(".quality").get_attribute("data-plan")
    page.evaluate("before => { window.begin(); window.reached.before = before; }", before)
    act()
    page.wait_for_function(f"window.reached?.{until}", timeout=120_000)
    return page.evaluate("window.reached")


def typed(page: Page, plan: str) -> None:
    """Type a plan and press Enter."""
    page.locator(".strip-plan input").fill(plan)
    page.locator(".strip-plan input").press("Enter")


def plan(chance: random.Random) -> str:
    """A plan without four layers that were drawn at random."""
    dropped = chance.sample(range(1, 29), 4)
    return ", ".join(str(i) for i in range(30) if i not in dropped)


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=8)
    options, others = parser.parse_known_args()
    chance = random.Random(time.time_ns())
    print(f"{os.cpu_count()} processors, load before {psutil.getloadavg()[0]:.1f}")
    taken: dict[str, list[float]] = defaultdict(list)
    with (
        sync_playwright() as playwright,
        tempfile.TemporaryDirectory() as folder,
        serving(folder, others) as url,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.add_init_script(NOTED)
        page.goto(url)
        page.wait_for_selector(".quality[aria-busy=false]", timeout=120_000)
        first = seconds(page, lambda: typed(page, plan(chance)))["first"]
        taken["the first edit, which loads the weights"].append(first)
        for _ in range(options.times):
            reached = seconds(page, lambda: typed(page, plan(chance)))
            taken["from an edit to the first number"].append(reached["first"])
            taken["from an edit to the last number"].append(reached["last"])
            undo = page.get_by_role("button", name="Undo", exact=True)
            known = seconds(page, undo.click)["first"]
            taken["from an undo to the number, which is known"].append(known)
            typed(page, plan(chance))
            page.wait_for_timeout(700)  # it is being measured
            answered = seconds(page, lambda: typed(page, plan(chance)), "answered")["answered"]
            taken["until an edit is answered meanwhile"].append(answered)
            page.wait_for_function("window.reached.last", timeout=120_000)
        browser.close()
    print(f"{'seconds, of ' + str(options.times) + ' edits':44s} {'median':>7s} {'worst':>7s}")
    for what, times in taken.items():
        print(f"{what:44s} {statistics.median(times):7.2f} {max(times):7.2f}")


if __name__ == "__main__":
    main()
