"""The Quality tile in a browser: what an edit does is seen as it is made."""

import random
import re
import secrets

import pytest
from hands import both_schemes, depth, faults, write_plan
from playwright.sync_api import Page, expect
from window_sizes import resize

from surgery import Base, Plan, texts
from surgery.analysis import LossIncrease, Sample, measured_score
from surgery.numbers import perplexity

SLOW = 150_000  # milliseconds for what computes, beside other tests
# All that the tile has shown as the cost of the plan on the page: plan, number, still at it.
WATCHED = """
() => {
  window.shownValues = [];
  window.greyed = [];
  const box = document.querySelector('.quality');
  new MutationObserver(() => {
    if (box.classList.contains('stale')) {
      window.greyed.push([box.dataset.plan, box.querySelector('.quality-message').textContent]);
      return;
    }
    const number = box.querySelector('strong').textContent;
    const seen = [box.dataset.plan, number, box.getAttribute('aria-busy')];
    if (String(window.shownValues.at(-1)) !== String(seen)) window.shownValues.push(seen);
  }).observe(box, { subtree: true, childList: true, attributes: true, characterData: true });
}
"""


def box(page: Page):
    return page.locator(".quality")


def settled(page: Page) -> str:
    """The number once the plan is measured."""
    expect(box(page)).to_be_visible()
    expect(box(page)).not_to_have_class(re.compile("stale"), timeout=SLOW)
    expect(box(page)).to_have_attribute("aria-busy", "false", timeout=SLOW)
    return box(page).locator("strong").inner_text()


def unseen() -> str:
    """A plan that nobody has measured."""
    kept = random.Random(secrets.token_bytes(8)).sample(range(1, 29), 25)
    return str(Plan.of([0, *kept, 29], 30))


def judged_on(base: Base, kind: str = "prose") -> Sample:
    """The text that the tile measures on."""
    return Sample.of(base, texts.get(kind, "judge"))


def expected(base: Base, text: str, kind: str = "prose") -> str:
    """The number of the library."""
    sample = judged_on(base, kind)
    scores = [
        measured_score(base, plan, sample)
        for plan in (Plan.parse(text, base.depth), Plan.whole(base.depth))
    ]
    mean = LossIncrease.of(*scores).mean
    return f"{mean:+.{2 if abs(mean) >= 0.1 else 3}f}".replace("-", "−")


@pytest.fixture
def page(measuring_app, open_page):
    """The page, which measures each plan."""
    return open_page(measuring_app)


def test_each_plan_has_its_own_value_and_the_next_edit_takes_over(page, bundled):
    whole = measured_score(bundled, Plan.whole(bundled.depth), judged_on(bundled))
    expect(box(page).locator("strong")).to_have_text(perplexity(whole.perplexity), timeout=SLOW)
    expect(box(page)).to_contain_text("perplexity of the base")
    write_plan(page, "0:13, 17:30")
    depth(page, 26)
    cut = expected(bundled, "0:13, 17:30")
    expect(box(page).locator("strong")).to_have_text(cut, timeout=SLOW)
    assert settled(page) == cut
    expect(box(page).locator("select")).to_have_value("prose")
    expect(box(page)).to_contain_text(f"{judged_on(bundled).tokens} tokens")
    expect(box(page).locator(".quality-mark")).to_contain_text("4 random layers dropped: +")
    page.evaluate(WATCHED)
    page.get_by_role("button", name="Undo", exact=True).click()
    depth(page, 30)
    assert settled(page) == perplexity(whole.perplexity)
    page.get_by_role("button", name="Redo", exact=True).click()
    depth(page, 26)
    assert settled(page) == cut
    # What is known is there at once: nothing was shown as measured meanwhile.
    seen = [one for one in page.evaluate("window.shownValues") if one[0] == "0:13, 17:30"]
    assert {number for _, number, _ in seen} == {cut}

    page.get_by_role("button", name="Undo", exact=True).click()
    depth(page, 30)
    assert settled(page) == perplexity(whole.perplexity)
    page.evaluate("window.shownValues = []; window.greyed = []")
    first, second = unseen(), unseen()
    write_plan(page, first)
    expect(box(page)).to_have_attribute("aria-busy", "true")
    write_plan(page, second)
    depth(page, 27)
    page.wait_for_timeout(300)
    assert settled(page) == expected(bundled, second)
    seen = page.evaluate("window.shownValues")
    assert seen[-1] == [second, expected(bundled, second), "false"]
    assert not [one for one in seen if one[0] == first and one[2] == "false"]  # it was stopped
    # The base's number is no other plan's.
    assert {number for plan, number, _ in seen if plan == "0:30"} <= {perplexity(whole.perplexity)}
    assert perplexity(whole.perplexity) not in {n for plan, n, _ in seen if plan != "0:30"}
    # Between the edit and the answer it was greyed, and named its plan.
    greyed = page.evaluate("window.greyed")
    assert greyed[0] == ["0:30", "for plan 0:30"]
    assert all(message == f"for plan {plan}" for plan, message in greyed)


def test_many_strangers_ask_for_it(public_app, open_page):
    pages = [open_page(public_app) for _ in range(4)]
    for one in pages:
        settled(one)  # so that each has been here
    page = pages[-1]
    write_plan(page, "0:28")
    depth(page, 28)
    expect(box(page).locator(".quality-message")).to_contain_text("several visitors", timeout=SLOW)
    expect(box(page).locator("strong")).to_be_hidden()
    box(page).get_by_role("button", name="Measure").click()
    assert settled(page).startswith("+")
    write_plan(page, "0:27")
    depth(page, 27)
    expect(box(page).locator("strong")).to_be_hidden(timeout=SLOW)
    expect(box(page).get_by_role("button", name="Measure")).to_be_visible()


def test_another_text_and_a_plan_that_can_not_be_operated_says_why(
    measuring_app, open_small, small_base
):
    page, base = open_small(measuring_app), Base.open(str(small_base))
    write_plan(page, "0:29")
    depth(page, 29)
    assert settled(page) == expected(base, "0:29")
    page.get_by_label("Text to measure on").select_option("code")
    assert settled(page) == expected(base, "0:29", "code")
    write_plan(page, "0:30@average")
    expect(box(page).locator(".quality-message")).to_contain_text("@average", timeout=SLOW)
    expect(box(page).locator("strong")).to_be_hidden()


def test_everyone_can_read_it(page):
    write_plan(page, "0:13, 17:30")
    depth(page, 26)
    settled(page)
    sizes = [(390, 844), (1366, 768), (1920, 1080)]
    for scheme in both_schemes(page):
        # In the dark, colours alone differ, and those don't depend on the size.
        for width, height in sizes if scheme == "light" else sizes[-1:]:
            resize(page, width, height)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert box(page).evaluate("node => node.scrollWidth <= node.clientWidth")
            assert not faults(page, "#numbers")  # other tests read what is around it
