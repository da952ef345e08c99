"""Whatever is wrong is said with its place and its mend, and the platform goes on."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def ready_message(site, kind, name, seconds=60):
    """The message of the object's Ready condition once it is False."""

    def condition():
        conditions = site.status(kind, name).get("conditions", [])
        return next((c for c in conditions if c["type"] == "Ready" and c["status"] == "False"), None)

    site.until(lambda: condition() is not None, seconds, f"{kind} {name} is not Ready")
    return condition()["message"]


def test_wrong_objects_are_refused_and_the_next_right_one_is_taken(site, make, tiny_model, colour_rows):
    fast = site.try_apply(make.group("g", learningRate="fast"))
    assert fast.returncode == 2
    assert "learningRate" in fast.stderr and "fast" in fast.stderr
    metric = make.experiment("e", ["g"])
    metric["spec"]["scoring"]["metrics"] = ["rouge-99"]
    unknown = site.try_apply(metric)
    assert unknown.returncode == 2
    assert "rouge-99" in unknown.stderr and "rouge-l" in unknown.stderr

    broken = [
        {"messages": [{"role": "user", "content": "say red"}]},
        {"messages": [{"role": "user", "content": "say blue"}]},
    ]
    nowhere = site.files / "empty"
    nowhere.mkdir()
    pickled = site.files / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    latin = site.files / "latin.jsonl"
    latin.write_bytes(b'{"prompt": "a", "completion": "caf\xe9"}\n')
    site.apply(
        make.dataset(site.data_file("no-answer.jsonl", broken), "no-answer"),
        make.dataset(latin.as_uri(), "latin"),
        make.dataset("train.jsonl", "relative"),
        make.llm(nowhere.as_uri(), "nowhere"),
        make.llm(pickled.as_uri(), "pickled"),
        make.group(),
        make.finetune("lonely", dataset="missing", llm="nobody"),
    )
    said = ready_message(site, "ds", "no-answer")
    assert "no-answer.jsonl:1" in said and "assistant" in said
    said = ready_message(site, "ds", "latin")
    assert "latin.jsonl:1" in said and "UTF-8" in said
    assert "file://" in ready_message(site, "ds", "relative")
    assert "config.json" in ready_message(site, "llm", "nowhere")
    assert "safetensors" in ready_message(site, "llm", "pickled")
    lonely = site.status("ft", "lonely")
    assert lonely["phase"] == "Pending"
    assert "nobody" in lonely["message"] or "missing" in lonely["message"]

    site.apply(
        make.llm(tiny_model.as_uri()),
        make.dataset(site.data_file("colours.jsonl", colour_rows)),
        make.group("short", cutoffLength=8),
        make.finetune("cut", "short"),
        make.finetune("good"),
    )
    site.until(lambda: site.phase("ft", "good") == "Succeeded", 120, "the good one ends well")
    site.until(lambda: site.phase("ft", "cut") == "Failed", 60, "the one without trained tokens fails")
    assert "cutoffLength" in site.status("ft", "cut")["message"]


def test_an_experiment_ranks_what_succeeded_and_lists_what_failed(site, make, tiny_model, colour_rows):
    site.apply(
        make.llm(tiny_model.as_uri()),
        make.dataset(site.data_file("colours.jsonl", colour_rows)),
        make.group("good", maxSteps=30),
        make.group("cut", cutoffLength=8),
        make.experiment("e", ["good", "cut"]),
    )
    site.until(lambda: site.phase("fe", "e") in ("Succeeded", "Failed"), 180, "the experiment ends")
    status = site.status("fe", "e")
    assert status["phase"] == "Succeeded"
    assert [f["job"] for f in status["failures"]] == ["e-cut"]
    assert {row["name"] for row in status["ranking"] if row.get("rank")} == {"e-good", "tiny"}
    base = next(row for row in status["ranking"] if row.get("base"))
    assert status["best"]["job"] == "e-good"
    assert status["best"]["score"] > base["score"]
    site.kill()
    site.start()
    assert site.status("fe", "e") == status, "what is terminal stays as it was"
