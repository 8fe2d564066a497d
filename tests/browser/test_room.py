"""Several people on one page: turns are shown, and a closed tab gives its turn on."""

import re

from hands import depth, write_plan
from playwright.sync_api import expect


def begin(page, tokens: int) -> None:
    page.locator(".talk-settings button").first.click()
    page.get_by_label("number input for Length").fill(str(tokens))
    page.get_by_label("number input for Length").press("Enter")
    page.locator("#stream").click()


def test_who_waits_sees_the_place_and_a_closed_tab_gives_its_turn_on(public_app, open_page):
    from components.turns import AT_ONCE

    waiting = open_page(public_app)  # ready before the others begin: they don't speak for long
    talking = [open_page(public_app) for _ in range(AT_ONCE)]
    for page in talking:
        begin(page, 256)
        said = page.locator("[data-who=patient] .talk-said")
        expect(said).to_have_text(re.compile(r"\w"), timeout=120_000)
    begin(waiting, 8)
    line = waiting.locator("#talk-status p")
    expect(line).to_contain_text("Place 1 in the queue", timeout=60_000)
    write_plan(waiting, "0:5")  # edits don't wait
    depth(waiting, 5)
    for page in talking:
        page.close()
    said = waiting.locator("[data-who=patient] .talk-said")
    expect(said).to_have_text(re.compile(r"\w"), timeout=60_000)  # within the minute
