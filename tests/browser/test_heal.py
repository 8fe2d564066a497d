"""The heal panel in a browser: a text of one's own, start, watch, pause, go on, and the healed
patient in Talk, X-ray and Log."""

import re

from hands import depth, own_text, violations, write_plan
from playwright.sync_api import Page, expect

TEXT = "It was a quiet day, and nobody had come to see the garden since the rain began. " * 40


def number(page, name: str):
    return page.locator(f"#heal-{name} input")


def shorten(page: Page, steps: int) -> None:
    """Settings of a short run."""
    page.get_by_role("button", name="Advanced settings").click()
    for name, value in (("batch", 2), ("window", 16), ("steps", steps)):
        enter(page, name, value)


def enter(page: Page, name: str, value: int) -> None:
    """Type a number. A field that is only just being put into the page forgets what is typed."""
    field = number(page, name)
    for _ in range(20):
        field.fill(str(value))
        field.press("Tab")
        page.wait_for_timeout(150)
        if field.input_value() == str(value):
            return
    raise AssertionError(f"{name} does not keep {value}.")


def choose(page: Page, kind: str) -> None:
    """The kind of text to train on."""
    page.locator("#heal-text input").click()
    page.get_by_role("option", name=kind).click()


def file(name: str, text: str | bytes) -> dict:
    """As a visitor has it on a disk."""
    data = text if isinstance(text, bytes) else text.encode()
    return {"name": name, "mimeType": "text/plain", "buffer": data}


def test_the_cost_is_that_of_what_the_page_shows(app, open_page, tiny_folder):
    """However late the answer to an earlier request comes. While the plan is unchanged, it says
    what to do first."""
    page = open_page(f"{app}/?base={tiny_folder('llama')}")
    depth(page, 6)
    page.get_by_role("tab", name="Heal").click()
    cost, status = page.locator("#heal-cost"), page.locator("#heal-status .status")
    message = cost.locator(".heal-message")
    expect(message).to_contain_text("Drop, repeat or move layers first")
    page.locator("#heal").click()
    expect(status).to_contain_text("Drop, repeat or move layers first")
    for line in (message, status):
        expect(line).not_to_have_class(re.compile("failed"))
    write_plan(page, "0:2, 4:6")
    expect(message).to_be_hidden()
    expect(cost).to_contain_text("Estimated time")

    shorten(page, 500)
    expect(cost).to_contain_text("for 16,000 tokens")
    expect(cost).to_contain_text("fits in memory")
    compute = cost.locator(".heal-numbers b").nth(2)
    before = compute.inner_text()
    write_plan(page, "0:1, 4:6")  # costs follow the plan, and the settings
    depth(page, 3)
    expect(compute).not_to_have_text(before)
    expect(cost).to_contain_text("for 16,000 tokens")
    held = []

    def hold(route) -> None:
        """Keep back the first request for costs."""
        if held or '"data":[null,null,null,' not in (route.request.post_data or ""):
            route.continue_()
        else:
            held.append(route)

    page.route("**/gradio_api/**", hold)
    enter(page, "batch", 4)
    write_plan(page, "0:1, 5:6")
    depth(page, 2)
    enter(page, "batch", 8)
    assert len(held) == 1
    expect(cost).to_contain_text("for 16,000 tokens")
    held[0].continue_()
    expect(cost).to_contain_text("for 64,000 tokens")
    page.unroute_all(behavior="wait")
    write_plan(page, "0:6")
    expect(cost).to_contain_text("nothing to recover")


def test_a_text_of_one_s_own_heals_what_talk_x_ray_and_log_then_see(app, open_page, tiny_folder):
    """Also after a pause. What is no text and what is no data set is refused."""
    page = open_page(f"{app}/?base={tiny_folder('llama')}&plan=0:2,4:6&prompt=Once&tokens=8")
    depth(page, 4)
    expect(page.locator("#prompt textarea")).to_have_value("Once")
    page.locator("#stream").click()
    expect(page.locator("[data-who=patient] .talk-plan")).to_have_text("0:2, 4:6")
    outdated = page.locator("[data-who=patient] .talk-stale")
    page.get_by_role("tab", name="Heal").click()
    shorten(page, 240)  # long enough to be paused
    status, board = page.locator("#heal-status"), page.locator("#heal-board")

    choose(page, "a data set on the Hub")
    for text, message in (
        ("", "Name a data set"),
        ("/etc/<b>x</b>", "“/etc/<b>x</b>” is not a data set"),
    ):
        page.locator("#heal-data textarea").fill(text)
        page.locator("#heal").click()
        expect(status).to_contain_text(message)
    assert page.locator("#heal-status b").count() == 0
    choose(page, "your own file")
    chooser, line = page.locator("#heal-file input"), page.locator("#heal-file p")
    page.locator("#heal").click()
    expect(status).to_contain_text("Choose a file")
    for name, text, message in (
        ("empty.txt", " ", "empty.txt is empty"),
        ("<b>bytes</b>.txt", b"\xff\xfe\x00", "<b>bytes</b>.txt is not text in UTF-8"),
        ("<b>mine</b>.txt", TEXT, "<b>mine</b>.txt, 3.2 kB"),
    ):
        chooser.set_input_files(file(name, text))
        expect(line).to_contain_text(message)
    assert page.locator("#heal-file b").count() == 0

    page.locator("#heal").click()
    step = board.locator("b").first
    expect(step).to_have_text(re.compile(r"\d+ of 240"), timeout=120_000)
    page.locator("#heal-pause").click()
    expect(status).to_contain_text("Paused")
    assert int(step.inner_text().split()[0]) < 240
    for _ in range(40):  # a click is lost while the page still waits for the old run's last word
        page.locator("#heal").click()
        page.wait_for_timeout(250)
        if "Paused" not in status.inner_text():
            break
    expect(status).to_contain_text("Healed.", timeout=120_000)
    expect(step).to_have_text("240 of 240")
    expect(board).to_contain_text("after step 240")
    expect(page.locator("#heal-curve .scatterlayer .trace").first).to_be_visible()
    assert not violations(page)

    page.get_by_role("tab", name="Talk").click()
    expect(outdated).to_have_text("Outdated: the patient was healed.")
    write_plan(page, "0:3, 4:6")
    expect(outdated).to_have_text("Outdated: the plan changed.")
    write_plan(page, "0:2, 4:6")
    expect(outdated).to_have_text("Outdated: the patient was healed.")
    page.locator("#stream").click()
    expect(page.locator("[data-who=patient] .talk-plan")).to_have_text("0:2, 4:6, healed")
    expect(outdated).to_have_text("")

    page.get_by_role("tab", name="Log").click()
    rows = page.locator("#log-table tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(1)).to_contain_text("healed, 240 steps")
    expect(rows.nth(2)).not_to_contain_text("healed")
    expect(page.locator("#log-picture .scatterlayer .point")).to_have_count(3)

    own_text(page)
    page.get_by_role("tab", name="What the cut did").click()
    compared = page.locator("#compare-status")
    page.locator("#compare-start").click()
    expect(compared).to_contain_text("0:2, 4:6, healed (2 dropped)", timeout=120_000)
    expect(page.locator("#lens-patient")).to_contain_text("healed patient")
    write_plan(page, "0:3, 4:6")
    depth(page, 5)
    page.locator("#compare-start").click()
    expect(compared).to_contain_text("Compared with the plan 0:3, 4:6 (", timeout=120_000)


def test_a_public_page_that_allows_it_takes_a_small_file(public_app, open_page):
    """Through the guard, which takes no uploads and no large requests."""
    page = open_page(public_app)
    write_plan(page, "0:13, 17:30")
    depth(page, 26)
    page.get_by_role("tab", name="Heal").click()
    choose(page, "your own file")
    chooser, line = page.locator("#heal-file input"), page.locator("#heal-file p")
    chooser.set_input_files(file("large.txt", "x" * 400_001))
    expect(line).to_contain_text("large.txt has 400.0 kB; the limit is 400.0 kB")
    chooser.set_input_files(file("full.txt", '\n"' * 200_000))  # the most, and each escaped
    expect(line).to_have_text("full.txt, 400.0 kB")
    page.get_by_role("button", name="Advanced settings").click()
    for name, value in (("window", 2048), ("batch", 4)):
        enter(page, name, value)
    page.locator("#heal").click()
    expect(page.locator("#heal-status")).to_contain_text("a run has at most 1,000 steps")
