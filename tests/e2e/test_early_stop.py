"""Early stopping through the whole platform: scores on the way end trainings, and the best is recommended."""

import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def condition(status, type):
    return next(one for one in status["conditions"] if one["type"] == type)


def test_jobs_end_when_their_answers_get_no_better_and_the_best_of_each_is_scored(
    site, make, tiny_model, colour_rows
):
    steps = {"maxSteps": 1000, "evalEvery": 5, "saveEvery": 50, "keepCheckpoints": 1}
    site.apply(
        make.llm(tiny_model.as_uri()),
        make.dataset(site.data_file("colours.jsonl", colour_rows)),
        make.group("quick", **steps),
        make.group("still", **(steps | {"learningRate": 1e-9})),
        make.experiment(
            "e", ["quick", "still"], samples=["say red"], sampleSystemPrompt="one word",
            earlyStopping={"patience": 3, "measure": "score", "limit": 6},
        ),
    )  # fmt: skip
    site.until(lambda: site.phase("fe", "e") in ("Succeeded", "Failed"), 240, "the experiment ends")

    status = site.status("fe", "e")
    assert status["phase"] == "Succeeded" and status["jobs"]["succeeded"] == 2
    assert condition(status, "StoppedEarly")["message"] == "2 of 2 jobs stopped early: e-quick, e-still"
    assert (status["best"]["job"], status["best"]["score"]) == ("e-quick", 1.0)
    told = [event for events in site.events().values() for event in events]
    for name in ("e-quick", "e-still"):
        training, job = site.status("ft", name), site.status("fj", name)
        points = [e for e in told if e.get("job") == name and "evalScore" in (e.get("values") or {})]
        scores = {e["step"]: e["values"]["evalScore"] for e in points}
        kept = site.get("ckpt", name)["spec"]["step"]
        assert training["phase"] == "Succeeded" and training["reason"] == "StoppedEarly"
        assert training["progress"]["step"] == max(scores) < 1000 and list(scores) == sorted(scores)
        assert scores[kept] == max(scores.values()) == training["metrics"].get("evalScore", 0.0)
        assert condition(job, "StoppedEarly")["message"] == training["message"]
        assert f"best at step {kept}: {scores[kept]:.4g}" in training["message"]
        assert {one["step"] for one in training["checkpoints"]} == {kept, max(scores)}
        first = min(step for step, score in scores.items() if score == scores[kept])
        assert sum(step > first for step in scores) == 3, "its patience"
        folder = Path(unquote(urlsplit(site.get("ckpt", name)["spec"]["uri"]).path))
        assert json.loads((folder / "manifest.json").read_bytes())["score"] == scores[kept]
