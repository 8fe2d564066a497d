"""Several people on one page: turns are shown, and a closed tab gives its turn on."""

import re
import secrets

from hands import depth, write_plan
from playwright.sync_api import expect

_NARROW = "hidden_size=192,intermediate_size=96,num_attention_heads=3,num_key_value_heads=3"


def test_who_waits_sees_the_place_and_a_closed_tab_gives_its_turn_on(public_app, open_page):
    from components.services.fair_queue import AT_ONCE

    waiting = open_page(f"{public_app}/?tokens=8")  # all are ready before the first one begins
    # The longest text of a public page; at the usual temperature it would end after 89 tokens.
    endless = f"{public_app}/?tokens=256&greedy=1&prompt=Count%3A+1+2+3+4"
    talking = [open_page(endless) for _ in range(AT_ONCE)]
    for page in talking:
        page.locator("#stream").click()
    for page in talking:  # each has a turn, which lasts for both models' 256 tokens
        message = page.locator("[data-who=base] .talk-said")
        expect(message).to_have_text(re.compile(r"\w"), timeout=120_000)
    waiting.locator("#stream").click()
    line = waiting.locator("#talk-status p")
    expect(line).to_contain_text("Place 1 in the queue", timeout=120_000)
    write_plan(waiting, "0:5")  # edits don't wait
    depth(waiting, 5)
    for page in talking:
        page.close()
    message = waiting.locator("[data-who=patient] .talk-said")
    expect(message).to_have_text(re.compile(r"\w"), timeout=60_000)  # within the minute


def test_tabs_that_are_closed_in_silent_work_keep_nobody_from_working(app, open_page):
    """Building and checking many random layers takes seconds with few progress reports."""
    size = 64 + secrets.randbelow(4096)  # of a model that was never measured before
    own = _NARROW.replace("intermediate_size=96", f"intermediate_size={size}")
    newcomer = open_page(f"{app}/?base=config:bundled,{own},num_hidden_layers=2")
    depth(newcomer, 2)
    for layers in (41, 42, 43, 44, 45):  # more than there are slots
        page = open_page(f"{app}/?base=config:bundled,{_NARROW},num_hidden_layers={layers}")
        depth(page, layers)
        page.get_by_role("tab", name="X-ray").click()
        page.locator("#xray-start").click()
        expect(page.locator("#xray-status p")).to_contain_text(re.compile(r"\w"))
        page.close()
    newcomer.get_by_role("tab", name="X-ray").click()
    newcomer.locator("#xray-start").click()
    expect(newcomer.locator("#xray-status")).to_contain_text(
        re.compile("Measuring|Perplexity"), timeout=120_000
    )
