"""Compare in a real browser, on a server that trains and serves a tiny model; serving, exporting, cloning."""

import json
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EVIL = '<script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'">'
TRAINED = ("colours-r2", "colours-r4", "colours-r8")


def dtx(place, *words, stdin=None):
    command = [sys.executable, "-m", "datatunerx.cli", *words]
    done = subprocess.run(
        command, env=place.environment, input=stdin, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(model, data):
    head = {"apiVersion": "datatunerx.io/v1beta1"}
    yield head | {"kind": "LLM", "metadata": {"name": "tiny"}, "spec": {"source": model}}
    splits = {"splits": {"train": [data]}}
    yield head | {"kind": "Dataset", "metadata": {"name": "colours"}, "spec": {"subsets": [splits]}}
    for name in TRAINED:
        rank = int(name.rpartition("r")[2])
        spec = {
            "maxSteps": 4,
            "batchSize": 4,
            "cutoffLength": 64,
            "learningRate": 0.01,
            "lora": {"rank": rank},
        }
        yield head | {"kind": "Hyperparameter", "metadata": {"name": f"r{rank}"}, "spec": spec}
        tune = {"llm": "tiny", "dataset": "colours", "hyperparameter": {"ref": f"r{rank}"}}
        yield head | {"kind": "FinetuneJob", "metadata": {"name": name}, "spec": {"finetune": tune}}


@pytest.fixture(scope="module")
def place(alive, tiny_model, colour_rows, tmp_path_factory):
    """A platform with a tiny base and three checkpoints of it."""
    file = tmp_path_factory.mktemp("data") / "colours.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in colour_rows))
    made = "\n---\n".join(json.dumps(each) for each in objects(tiny_model.as_uri(), file.as_uri()))
    dtx(alive, "apply", "-f", "-", stdin=made)
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        jobs = json.loads(dtx(alive, "get", "fj", "-o", "json"))["items"]
        phases = [(job.get("status") or {}).get("phase") for job in jobs]
        assert "Failed" not in phases, jobs
        if phases == ["Succeeded"] * 3:
            return alive
        time.sleep(1)
    raise AssertionError(phases)


def question(page, text, **switches):
    for name, on in switches.items():
        page.locator(f"#composer [name={name}]").set_checked(on)
    before = page.locator(".round").count()
    page.get_by_label("Question").fill(text)
    page.keyboard.press("Enter")
    round = page.locator(".round").nth(before)
    round.locator("input[name=round]").wait_for(state="attached", timeout=240_000)
    return round


def test_four_columns_answer_at_once_and_a_blind_vote_is_kept(browse, place):
    page = browse(f"compare?models=tiny,{','.join(TRAINED)}")
    page.locator("#composer summary").click()
    page.get_by_label("Longest answer").fill("12")
    page.keyboard.press("Escape")
    first = question(page, f"say red {EVIL}")
    names = first.locator(".answer h3 .who").all_inner_texts()
    assert names == ["tiny", *TRAINED]
    assert first.locator("footer").count() == 4
    assert all(
        "tokens/s" in text and "template" in text for text in first.locator("footer").all_inner_texts()
    )
    assert "adapter" not in first.locator("footer").first.inner_text()
    assert page.title() == "Compare · datatunerx"  # what was asked did not run
    second = question(page, "say green")
    assert "3 messages" in second.inner_text()

    blind = question(page, "say blue", blind=True)
    assert blind.locator(".answer h3").all_inner_texts() == list("ABCD")
    blind.get_by_role("button", name="B is best").click()
    page.get_by_text("Voted blindly.").wait_for()
    assert page.locator(".answer.voted").count() == 1
    winner = page.locator(".answer.voted .who").inner_text()
    page.wait_for_url("**saved=talk-**")
    name = page.url.rpartition("saved=")[2].partition("&")[0]

    page.reload()
    assert page.locator(".round").count() == 3
    assert page.locator(".answer.voted .who").inner_text() == winner
    kept = json.loads(json.loads(dtx(place, "get", "cm", name, "-o", "json"))["data"]["comparison.json"])
    assert [q.get("vote") for q in kept["questions"]] == [None, None, winner]
    with page.expect_download() as download:
        page.get_by_role("button", name="Download preference pairs").click()
    rows = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert len(rows) <= 3 and all(row["prompt"] == "say blue" for row in rows)
    page.get_by_role("button", name="Dataset from comparison").click()
    page.locator("#dialog [name=name]").fill("voted")
    page.get_by_role("button", name="Make the dataset").click()
    page.get_by_role("heading", name="voted").wait_for()
    page.get_by_text("Ready", exact=True).first.wait_for(timeout=240_000)
    assert (
        json.loads(dtx(place, "get", "ds", "voted", "-o", "json"))["status"]["report"]["splits"]["test"] == 1
    )


def test_an_answer_can_be_stopped_and_asked_again(browse):
    page = browse("compare?models=tiny")
    page.get_by_role("heading", name="Chat").wait_for()
    stopped = page.get_by_text("Stopped")
    ask = "document.querySelector('#composer').requestSubmit()"
    stop = "document.querySelector('[data-stop]').click()"
    page.get_by_label("Question").fill("say red")
    page.evaluate(f"{ask}; {stop}")  # in the same breath: the tiny model answers at once
    stopped.wait_for()
    assert question(page, "say red").locator(".said").inner_text()


def test_a_model_is_served_from_its_page_stopped_and_started(browse):
    page = browse("models/ckpt/colours-r4")
    page.get_by_role("button", name="Serve").click()
    page.get_by_label("Name of a new one").fill("desk")
    page.get_by_role("dialog").get_by_role("button", name="Serve").click()
    page.get_by_role("heading", name="desk").wait_for()
    page.get_by_text("Running").first.wait_for(timeout=240_000)
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Stop, to resume later").click()
    page.get_by_text("It is stopped").wait_for(timeout=240_000)
    page.get_by_role("button", name="Start").click()
    page.get_by_role("dialog").get_by_role("button").last.click()
    page.get_by_role("button", name="Stop").wait_for(timeout=240_000)


def test_a_checkpoint_is_exported_from_its_page_and_says_what_was_checked(browse):
    page = browse("models/ckpt/colours-r2")
    page.get_by_role("button", name="Export").click()
    page.get_by_role("dialog").get_by_role("button", name="Export").click()
    page.locator("#export-hf").get_by_text("Succeeded").wait_for(timeout=240_000)
    assert "answers are those of base and adapter" in page.locator("#export-hf").inner_text()


def test_what_was_exported_is_downloaded_and_pulled_byte_by_byte(browse, place, tmp_path):
    dtx(place, "export", "colours-r4", "--to", "gguf")
    (made,) = (place.home / "data" / "exports").glob("*/gguf/model.gguf")
    page = browse("models/ckpt/colours-r4")
    page.get_by_role("button", name="Its files").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="model.gguf").click()
    assert download.value.suggested_filename == "model.gguf"
    assert download.value.path().read_bytes() == made.read_bytes()
    said = dtx(place, "pull", "colours-r4", "--to", str(tmp_path / "home"))
    assert "SHA-256" in said
    assert (tmp_path / "home" / "model.gguf").read_bytes() == made.read_bytes()


def test_a_clone_and_a_next_base_are_made_with_changes(browse):
    page = browse("jobs/colours-r2")
    page.get_by_role("link", name="Clone with changes").click()
    text = page.get_by_label("What will be made")
    text.fill(text.input_value().replace("ref: r2", "ref: r8"))
    page.get_by_role("button", name="Create").click()
    page.get_by_role("heading", name="colours-r2-copy").wait_for()
    page = browse("models/ckpt/colours-r2")
    page.get_by_role("link", name="Use as next base").click()
    page.get_by_text("It goes on from the checkpoint colours-r2").wait_for()
    assert page.get_by_label("Name of the experiment").input_value() == "colours-r2-next"
    page.get_by_role("button", name="Next").last.click()
    assert page.get_by_role("radio", name="colours-r2 ").is_checked()
    page.get_by_text("checkpoint://colours-r2").wait_for()
    page.get_by_text("The architecture is known").wait_for(timeout=240_000)
    for button in ("Next", "Next", "Start training"):
        with page.expect_navigation():
            page.get_by_role("button", name=button).last.click()
    page.get_by_role("button", name="Stop", exact=True).wait_for()


def test_jobs_that_are_ticked_are_compared(browse):
    page = browse("jobs")
    for name in TRAINED[:2]:
        page.get_by_label(f"Select fj/{name}", exact=True).check()
    page.locator(".selection").get_by_role("button", name="Compare").click()
    page.get_by_role("heading", name="Compare").wait_for()
    assert page.locator(".who-is-here .chip").count() == 2
    page.get_by_role("link", name="Settings").first.click()
