"""The heal panel in a browser: start, watch, pause, go on, and talk to the healed patient."""

import re

from hands import depth, open_base, write_plan
from playwright.sync_api import expect


def number(page, name: str):
    return page.locator(f"#heal-{name} input")


def test_start_watch_pause_and_go_on(page, tiny_folder):
    open_base(page, str(tiny_folder("llama")))
    depth(page, 6)
    write_plan(page, "0:2, 4:6")
    depth(page, 4)
    page.get_by_role("tab", name="Heal").click()
    page.get_by_role("button", name="Finer settings").click()
    for name, value in (("batch", 2), ("window", 16), ("steps", 1000)):
        number(page, name).fill(str(value))
        number(page, name).press("Tab")
    facts = page.locator("#heal-facts textarea")
    page.locator("#heal-price").click()
    expect(facts).to_have_value(re.compile(r"An estimate: 32,000 tokens.*fits here", re.S))
    page.locator("#heal").click()
    status = page.locator("#heal-status")
    expect(facts).to_have_value(re.compile(r"Step [\d,]+ of 1,000, loss"), timeout=60_000)
    page.locator("#heal-pause").click()
    expect(status).to_contain_text("Paused")
    step = int(re.search(r"Step ([\d,]+)", facts.input_value())[1].replace(",", ""))
    assert step < 1000
    for _ in range(40):  # a click is lost while the page still waits for the old run's last word
        page.locator("#heal").click()
        page.wait_for_timeout(250)
        if "Paused" not in status.inner_text():
            break
    expect(status).to_contain_text("Healed.", timeout=120_000)
    expect(facts).to_have_value(re.compile(r"Step 1,000 of 1,000, loss .*\nPerplexity on"))
    expect(page.locator("#heal-curve .scatterlayer .trace").first).to_be_visible()
    page.get_by_role("tab", name="Talk").click()
    page.locator("#prompt textarea").fill("Once")
    page.locator("#stream").click()
    expect(page.locator("#talk")).to_contain_text("0:2, 4:6, healed")
