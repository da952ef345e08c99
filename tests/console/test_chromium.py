"""The console in a real browser: language, theme, keyboard, actions, access, every page's picture.

DTX_IMAGES names a folder for the pictures; `make screenshots` sets it.
"""

import os
from pathlib import Path

import pytest

from .waiting import refreshed, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAGES = {
    "experiments": "experiments",
    "experiments-cards": "experiments?view=cards",
    "experiment": "experiments/support-tickets",
    "experiment-running": "experiments/faq-zh-qwen",
    "experiment-failed": "experiments/contracts-long-context",
    "experiment-differences": "experiments/support-tickets?tab=differences",
    "jobs": "jobs",
    "job": "jobs/faq-zh-qwen-b",
    "experiment-charts": "experiments/support-tickets?tab=charts",
    "job-charts": "jobs/support-tickets-r8-lr2e-3?tab=charts",
    "job-logs": "jobs/faq-zh-qwen-b?tab=logs",
    "job-config": "jobs/faq-zh-qwen-b?tab=config",
    "job-samples": "jobs/support-tickets-r8-lr2e-3?tab=samples",
    "job-done": "jobs/support-tickets-r8-lr2e-3",
    "job-scored": "jobs/support-tickets-r8-lr2e-3?tab=scored",
    "job-files": "jobs/support-tickets-r8-lr2e-3?tab=files",
    "datasets": "datasets",
    "dataset": "datasets/support-tickets",
    "dataset-rows": "datasets/support-tickets?tab=rows",
    "dataset-problems": "datasets/support-tickets?tab=problems",
    "dataset-edit": "datasets/support-tickets?tab=edit",
    "dataset-plugin": "datasets/support-tickets?tab=plugin",
    "dataset-new": "datasets/_new",
    "dataset-addresses": "datasets/_new?way=addresses",
    "models": "models",
    "model": "models/llm/smollm2",
    "checkpoint": "models/ckpt/support-tickets-r8-lr2e-3",
    "hyperparameters": "hyperparameters",
    "hyperparameter": "hyperparameters/r8-lr1e-3",
    "plugins": "plugins",
    "plugin": "plugins/dp/from-tickets",
    "services": "services",
    "service": "services/try-tickets",
    "experiment-samples": "experiments/support-tickets?tab=samples",
    "compare": "compare",
    "compare-answers": "compare?saved=monday",
    "compare-curves": "compare?models=fe/support-tickets&tab=curves",
    "compare-settings": "compare?models=fe/support-tickets&tab=settings",
    "wizard-place": "new",
    "wizard-data": "new/draft-open/2",
    "wizard-parameters": "new/draft-open/3",
    "wizard-start": "new/draft-open/4",
    "wizard-live": "new/draft-runs/4",
    "wizard-results": "new/draft-done/5",
    "wizard-home": "new/draft-done/6",
    "devices": "devices",
    "events": "events",
    "settings": "settings",
}
AXE = Path(__file__).parent / "vendor" / "axe-4.14.1.min.js"


def choose(page, theme):
    """As the button for it does; with the charts that the page has drawn."""
    page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
    page.evaluate("document.dispatchEvent(new Event('dtx:theme'))")
    for chart in page.locator("dtx-charts figure:visible").all():
        chart.locator("canvas").wait_for()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_drawn_in_both_themes_and_anyone_can_use_it(browse, tmp_path, name):
    page = browse(PAGES[name])
    folder = Path(os.environ.get("DTX_IMAGES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    for theme in ("light", "dark"):
        choose(page, theme)
        page.screenshot(path=folder / f"{name}-{theme}.png")
        faults = axe(page)
        assert faults == [], theme
    page.set_viewport_size({"width": 390, "height": 844})
    until(page, "document.documentElement.scrollWidth <= 390")  # once the charts have taken its width


def axe(page):
    """Serious and critical findings, and landmarks of one name. Run through the debugger, which no policy of
    the page binds."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        (each["id"], [node["html"][:120] for node in each["nodes"][:3]])
        for each in found
        if each["impact"] in ("serious", "critical") or each["id"] == "landmark-unique"
    ]


@pytest.mark.parametrize(
    "path",
    [
        "experiments/contracts-long-context",
        "jobs/faq-zh-qwen-b?tab=samples",
        "models/ckpt/support-tickets-r8-lr2e-3",
        "datasets/support-tickets",
        "models/llm/smollm2",
        "events",
    ],
)
def test_what_others_wrote_does_not_run(browse, path):
    page = browse(path)
    assert page.get_by_text("owned").count() > 0 or "owned" in page.content()
    assert page.locator("[onerror]").count() == 0  # nothing there that could run later
    assert page.title() != "owned"


def test_the_language_changes_where_one_stands_and_stays(browse):
    page = browse("experiments")
    page.get_by_role("button", name="中文").click()
    page.get_by_role("heading", name="实验").wait_for()
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.get_by_role("link", name="数据集").wait_for()  # what is around the page speaks it too
    page.reload()
    page.get_by_role("heading", name="实验").wait_for()
    page.get_by_role("button", name="EN", exact=True).click()
    page.get_by_role("heading", name="Experiments").wait_for()


def test_the_theme_is_remembered(browse):
    page = browse("settings")
    with page.expect_response("**/remember"):
        page.get_by_role("button", name="Dark").click()
    page.reload()
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    with page.expect_response("**/remember"):
        page.get_by_role("button", name="Light", exact=True).click()


def test_the_palette_finds_an_object_and_keys_lead_on(browse):
    page = browse("settings")
    page.keyboard.press("Control+k")
    page.keyboard.type("qwen-b")
    # not merely somewhere among what is there before the words: first, for that is what Enter takes
    until(page, "document.querySelector('#palette-found a.at')?.textContent.startsWith('faq-zh-qwen-b')")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="faq-zh-qwen-b").wait_for()
    page.wait_for_load_state()  # keys need the script, which comes after what is read
    page.keyboard.type("ge")
    page.get_by_role("heading", name="Experiments").wait_for()
    page.wait_for_load_state()
    page.keyboard.press("/")
    page.keyboard.type("contracts")
    page.wait_for_url("**q=contracts**")
    page.get_by_text("1 to 1 of 1").wait_for()


def test_rows_are_walked_by_keys_and_the_keys_are_told(browse):
    page = browse("datasets")
    for key, name in (("j", "contracts"), ("j", "support-tickets"), ("k", "contracts")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.textContent") == name
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Shortcuts").get_by_text("Next row, row before").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="support-tickets").wait_for()


def test_the_queue_is_put_in_order_by_dragging_and_by_keys(browse):
    page = browse("devices")
    rows = page.locator(".queue li")

    def names():
        return rows.evaluate_all("all => all.map(x => x.dataset.name)")

    first, second, last = names()  # of one age or not, as the clock had it when they were made
    rows.nth(2).drag_to(rows.nth(0), target_position={"x": 60, "y": 4})
    page.get_by_text("Priority:").wait_for()
    page.locator(f".queue li:first-child[data-name={last}]").wait_for()
    page.get_by_role("button", name=f"Move {first} down").focus()
    page.keyboard.press("Enter")
    page.locator(f".queue li:last-child[data-name={first}]").wait_for()
    assert names() == [last, second, first]


def test_ticked_rows_are_in_the_url_survive_a_refresh_and_can_be_stopped(browse):
    page = browse("experiments")
    page.get_by_label("Select faq-zh-qwen").check()
    page.get_by_label("Select support-tickets").check()
    page.get_by_label("Select support-tickets").uncheck()
    assert page.url.endswith("/experiments?selected=fe%2Ffaq-zh-qwen")
    page.reload()
    page.locator(".selection").get_by_text("1 selected").wait_for()
    refreshed(page)
    assert page.get_by_label("Select faq-zh-qwen").is_checked()
    page.locator(".selection").get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("dialog").get_by_text("dtx stop fe/faq-zh-qwen").wait_for(state="attached")
    page.get_by_role("button", name="Stop, to resume later").click()
    page.get_by_text("Done: faq-zh-qwen").wait_for()
    page.locator("#dialog").wait_for(state="hidden")


def test_a_server_that_is_gone_is_told_and_the_page_stays(browse, context):
    page = browse("jobs")
    context.set_offline(True)
    try:
        page.get_by_text("Reconnecting; data from").wait_for()
        assert page.get_by_role("link", name="faq-zh-qwen-b").is_visible()
    finally:
        context.set_offline(False)
    page.get_by_text("Reconnecting; data from").wait_for(state="hidden")
    browse.complaints.clear()  # of requests that found nobody, as they had to
