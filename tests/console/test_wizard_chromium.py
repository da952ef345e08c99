"""From an empty workspace to results by clicking only: the wizard in a real browser, on the real model."""

import json
import os
import re
import subprocess
import sys

import psutil
import pytest

CONSOLE = "/console/ns/default"
NOTE_DELTAS = """() => {
  window.deltas = [];
  new MutationObserver((changes) => {
    const columns = [...document.querySelectorAll(".round [data-text]")];
    for (const change of changes)
      if (columns.includes(change.target)) window.deltas.push(columns.indexOf(change.target));
  }).observe(document.getElementById("talk"), { childList: true, subtree: true });
}"""
"""Which column each piece of an answer was added to, as they come."""
COLOURS = ("red", "green", "blue")
pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    """`dtx up` with everything; its URL, and a link that logs in."""
    home = tmp_path_factory.mktemp("wizard") / "home"
    environment = {
        **os.environ, "DTX_HOME": str(home), "NO_COLOR": "1", "DTX_POLL_SECONDS": "0.3", "DTX_PORT": "0",
    }  # fmt: skip
    environment.pop("DTX_KUBECONFIG", None)
    command = [sys.executable, "-m", "datatunerx.cli", "up"]
    server = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        told = server.stdout.readline() + server.stdout.readline()
        yield re.search(r"https://\S+:\d+", told)[0], re.search(r"https://\S+once=\S+", told)[0]
    finally:
        server.terminate()
        server.communicate(timeout=120)
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "datatunerx.worker" in words and str(home) in str(words):
                process.kill()


@pytest.fixture(scope="module")
def page(chromium, platform):
    """A browser that has logged in; what it complains of fails the test at its end."""
    context = chromium.new_context(
        ignore_https_errors=True,
        viewport={"width": 1440, "height": 900},
        locale="en-GB",
        reduced_motion="reduce",
    )
    context.set_default_timeout(120_000)
    page = context.new_page()
    complaints = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(platform[1])
    yield page
    context.close()
    assert not complaints


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """40 rows, and one that has no answer."""
    rows = [
        {"messages": [{"role": "user", "content": f"say {w} {n}"}, {"role": "assistant", "content": w}]}
        for n, w in enumerate(COLOURS * 14)
    ][:40]
    rows.insert(5, {"messages": [{"role": "user", "content": "say nothing"}]})
    path = tmp_path_factory.mktemp("data") / "colours.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def onward(page, name, **exactly):
    """Press what leads to another page, or to this one anew; what is typed before it is there is lost."""
    with page.expect_navigation():
        page.get_by_role("button", name=name, **exactly).last.click()


def test_from_nothing_to_results_by_clicking(page, colours):
    page.get_by_role("link", name="New fine-tune").first.click()
    page.get_by_label("Name of the experiment").fill("my-first-model")
    onward(page, "Next")

    onward(page, "Use it")
    page.get_by_text("Tokenizer and chat template are there").wait_for(timeout=240_000)
    page.locator("dtx-upload input[type=file]").set_input_files(colours)
    page.get_by_role("button", name="Check the data").click()
    page.get_by_text("It can be trained on.").wait_for(timeout=240_000)
    page.get_by_text("colours.jsonl:6").first.wait_for()  # the bad row, with its line
    onward(page, "Next")

    onward(page, "A quick try")
    page.get_by_label(re.compile("^LoRA rank")).fill("4000")
    page.get_by_text("4000 is outside: 1 to 1,024").wait_for()
    page.get_by_label(re.compile("^LoRA rank")).fill("4, 8")
    page.get_by_text("Length and batch").click()
    page.get_by_label(re.compile("^Max steps")).fill("3")
    page.get_by_text("Scores", exact=True).click()
    page.get_by_label(re.compile("^Max new tokens")).fill("4")
    page.get_by_text("Sample prompts", exact=True).click()
    page.get_by_label(re.compile("^Samples")).fill("say red 1")
    page.get_by_text("These choices make 2 jobs").wait_for()

    # the language changes where one stands, and nothing that was typed is lost
    page.get_by_role("button", name="中文").click()
    page.get_by_role("heading", name="新建微调").wait_for()
    assert page.get_by_label("LoRA 秩").input_value() == "4, 8"
    page.get_by_role("button", name="EN", exact=True).click()
    page.get_by_role("heading", name="New fine-tune").wait_for()

    # left, and gone on with
    onward(page, "Leave, and go on later")
    page.get_by_role("link", name=re.compile("my-first-model")).click()
    assert page.get_by_label(re.compile("^LoRA rank")).input_value() == "4, 8"
    onward(page, "Next")

    card = page.get_by_label("What will happen")
    card.get_by_text("All train at once").wait_for()
    assert "2" in card.locator("dd").first.inner_text()
    onward(page, "Start 2 jobs")

    page.get_by_role("button", name="Stop and keep").wait_for()
    page.get_by_role("log").get_by_text("loading the base").wait_for(timeout=240_000)
    page.get_by_role("link", name="To the results").click(timeout=240_000)

    page.get_by_text("untouched base").first.wait_for()
    assert page.locator("table tbody tr").count() >= 3
    page.get_by_role("heading", name="say red 1").wait_for()
    page.locator("dtx-charts canvas").first.wait_for()
    page.get_by_role("link", name="Take it home").last.click()

    page.get_by_role("button", name="Export").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("link", name="Talk to base and tuned").first.click()
    page.get_by_role("heading", name="Compare").wait_for()
    page.get_by_text("my-first-model-r4").first.wait_for()

    page.locator("#composer summary").click()
    page.get_by_label("Longest answer").fill("16")
    page.keyboard.press("Escape")
    page.evaluate(NOTE_DELTAS)
    page.get_by_label("Question").fill("say green 1")
    page.keyboard.press("Enter")
    answers = page.locator(".round .answer")
    page.locator(".round input[name=round]").wait_for(state="attached", timeout=240_000)
    assert answers.locator("h3 .tag").all_inner_texts() == ["untouched base"]
    assert all(answers.locator(".said").all_inner_texts()) and answers.locator("footer").count() == 2
    came = page.evaluate("window.deltas")
    assert came.count(0) > 1 and came.count(1) > 1  # word by word
    last = [len(came) - 1 - came[::-1].index(column) for column in (0, 1)]
    assert came.index(0) < last[1] and came.index(1) < last[0]  # side by side


def test_what_was_started_is_found_again(page, platform):
    page.goto(f"{platform[0]}{CONSOLE}/experiments")
    page.get_by_role("link", name="my-first-model", exact=True).wait_for()
    assert page.get_by_text("Drafts to go on with").count() == 0
