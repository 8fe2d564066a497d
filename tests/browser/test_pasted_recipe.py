"""A mergekit recipe that is pasted into the plan's box, with its line breaks."""

from hands import depth, plan_box, write_plan
from playwright.sync_api import Page, expect

RECIPE = """slices:
- sources: [{model: org/other, layer_range: [0, 13]}]
- sources: [{model: org/other, layer_range: [17, 30]}]
merge_method: passthrough
"""
_PASTE = """(box, text) => {
  const clipboardData = new DataTransfer();
  clipboardData.setData('text/plain', text);
  const options = { clipboardData, bubbles: true, cancelable: true };
  return box.dispatchEvent(new ClipboardEvent('paste', options));
}"""


def paste(page: Page, text: str) -> bool:
    """Whether the browser is to insert it as it is."""
    box = plan_box(page)
    box.click()
    return box.evaluate(_PASTE, text)


def test_it_becomes_the_plan_or_says_why_not(page: Page):
    depth(page, 30)
    assert not paste(page, RECIPE)
    depth(page, 26)
    expect(plan_box(page)).to_have_value("0:13, 17:30")
    expect(page.get_by_text("The recipe is for org/other")).to_be_visible()
    assert not paste(page, RECIPE.replace("org/other", "org/first", 1))
    error = page.locator(".strip-error")
    expect(error).to_contain_text("stacks layers of 2 models")
    expect(plan_box(page)).to_have_value("0:13, 17:30")
    page.locator(".strip [data-op=undo]").click()
    depth(page, 30)
    expect(error).to_be_hidden()
    assert paste(page, "0:5")  # a plan is typed on
    write_plan(page, "0:20")
    depth(page, 20)
