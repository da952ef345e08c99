"""Stop, Resume, Stop and keep and Retry by clicking, in the wizard, while a tiny model trains."""

import json
import re
import time

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WORKS = 150_000
"""Milliseconds in which a worker begins on a busy machine."""


@pytest.fixture(scope="module")
def place(alive):
    return alive


@pytest.fixture
def press(browse):
    """Press a button of the wizard, and confirm what it says it will do."""

    def pressed(page, name, confirm):
        page.get_by_role("button", name=name, exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name=confirm).click()
        page.get_by_role("dialog").wait_for(state="hidden")

    return pressed


def state(page, word):
    page.locator(".now .state", has_text=re.compile(f"^{word}$")).wait_for(timeout=WORKS)


def trained(page, after=0):
    """Wait until the job has taken steps after this one; the share of them that it has done."""
    share = page.locator("table progress").first
    deadline = time.monotonic() + WORKS / 1000
    while time.monotonic() < deadline:
        if (done := float(share.get_attribute("value"))) > after:
            return done
        page.wait_for_timeout(200)
    raise AssertionError(f"no step after {after}")


def kill_worker(place):
    """As the kernel does when memory is short."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "datatunerx.worker" in words and str(place.home) in str(words):
            process.kill()


def test_by_clicking_a_training_is_stopped_resumed_kept_and_one_that_failed_tried_again(
    browse, press, place, tiny_model, colour_rows, tmp_path
):
    file = tmp_path / "colours.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in colour_rows))
    page = browse("new")
    page.get_by_label("Name of the experiment").fill("steered")
    page.get_by_role("button", name="Next").last.click()
    page.get_by_text("Another model", exact=True).click()
    page.locator("#source").fill(str(tiny_model))
    page.get_by_role("button", name="Check it").first.click()
    page.get_by_text("The weights are whole").wait_for(timeout=WORKS)
    page.get_by_text("Data that lies elsewhere").click()
    page.locator("#data_source").fill(str(file))
    page.get_by_role("button", name="Check it").last.click()
    page.get_by_text("It can be trained on.").wait_for(timeout=WORKS)
    page.get_by_role("button", name="Next").last.click()
    for group in ("Length and batch", "Checkpoints and evaluation", "Scores", "Device and queue"):
        page.get_by_text(group, exact=True).click()
    for label, value in (
        ("Max steps", "4000"), ("Save every", "10"), ("Log every", "5"), ("Max new tokens", "2"),
        ("Retry limit", "0"),
    ):  # fmt: skip
        page.get_by_label(re.compile(f"^{label}")).fill(value)
    assert page.get_by_text("needs a GPU, and this machine has none").first.is_visible()
    assert page.get_by_label(re.compile("^Accelerators")).is_disabled()
    page.get_by_role("button", name="Next").last.click()
    page.get_by_role("button", name="Start training").click()

    trained(page)
    press(page, "Stop", "Stop, to resume later")
    state(page, "Paused")
    reached = trained(page)
    press(page, "Resume", "Resume from the last whole checkpoint")
    state(page, "Running")
    trained(page, reached)
    press(page, "Stop and keep", "Stop for good, and keep a last checkpoint")
    page.get_by_role("link", name="To the results").click(timeout=WORKS)
    page.get_by_text("0 of 1 jobs succeeded, 1 stopped").wait_for()
    page.get_by_role("link", name="Take it home").last.click()
    page.get_by_role("link", name="Talk to base and tuned").wait_for()

    # another one with the same settings, whose worker dies
    page.get_by_role("link", name="3 Parameters").click()
    page.get_by_role("button", name="Change some and start another one").click()
    page.get_by_label("Name of the experiment").fill("tried-again")
    for button in ("Next", "Next", "Next", "Start training"):
        page.get_by_role("button", name=button).last.click()
    trained(page)
    kill_worker(place)
    state(page, "Failed")
    page.get_by_text("WorkerDied").first.wait_for()
    press(page, "Retry", "Try again")
    state(page, "Running")
    press(page, "Stop and keep", "Stop for good, and keep a last checkpoint")
    page.get_by_role("link", name="To the results").wait_for(timeout=WORKS)
