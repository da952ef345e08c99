"""Judges, plugins and services in a real worker: what they find, and what becomes of one that fails."""

import json
import sys
import time
from pathlib import Path

import psutil
import pytest

from datatunerx.plugins import SCORERS
from datatunerx.resources.enums import Metric, RunType
from datatunerx.resources.finetune import Endpoint, Judge, Question, SecretKeyRef
from datatunerx.resources.material import PluginLimits
from datatunerx.runs import ScorePlan
from datatunerx.runs.draws import Draws, draws_uri
from datatunerx.runs.files import CREDENTIALS
from datatunerx.runs.plan import PluginCall, ScorerPlan, identified
from datatunerx.scoring import Prediction, write_predictions
from datatunerx.worker.journal import Journal
from datatunerx.worker.marks import Folders
from datatunerx.worker.measure import Subject, measure_stored

SCORER = Path(__file__).parents[2] / "examples" / "plugins" / "scorer"


def stored(room, count=4):
    path = room.root / "stored.jsonl"
    write_predictions(path, [Prediction(n, f"q{n}", "yes", f"thank you {n}") for n in range(count)])
    return path


def scored(room, plugins=(), **fields):
    """The stored answers measured in this process; the plugin's child is real."""
    measure = room.measure(room.data(), plugins=list(plugins), **fields)
    plan = identified(RunType.SCORE, room.root_uri, {"score": ScorePlan(model=room.model, measure=measure)})
    uri = stored(room).as_uri()
    return measure_stored(Subject("", None), measure, uri, Folders(), Journal(plan), {})


def program(room, text, parameters=None, **limits):
    path = room.root / "scorer.py"
    path.write_text(text)
    call = PluginCall(
        name="own", group=SCORERS, command=[sys.executable, str(path)], limits=PluginLimits(**limits)
    )
    return ScorerPlan(plugin=call, parameters=parameters or {})


def test_a_program_reads_the_answers_and_its_marks_are_scored_with_an_interval(room):
    call = PluginCall(name="count", group=SCORERS, command=[sys.executable, str(SCORER / "word_count.py")])
    found = scored(room, [ScorerPlan(plugin=call, parameters={"most": 2})])
    words, short = found.metrics["count/words"], found.metrics["count/short"]
    assert (words.value, words.low, words.high, words.n) == (3.0, 3.0, 3.0, 4)
    assert words.higher_is_better is False and (short.value, short.n) == (0.0, 4)
    assert list(found.metrics) == ["exact-match", "count/words", "count/short"]
    draws = Draws.model_validate_json(
        Path(draws_uri(found.predictions_uri).removeprefix("file://")).read_bytes()
    )
    assert set(draws.metrics) == set(found.metrics) and len(draws.metrics["count/words"].draws) == 2000


def test_a_function_of_a_package_scores_with_its_parameters(room, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SCORER))
    for words, value in ((["thank"], 1.0), (["sorry"], 0.0)):
        call = PluginCall(name="polite", group=SCORERS, entry_point="polite_scorer:polite")
        found = scored(room, [ScorerPlan(plugin=call, parameters={"words": words})])
        assert (found.metrics["polite"].value, found.metrics["polite"].n) == (value, 4)


@pytest.mark.parametrize(
    ("text", "limits", "said"),
    [
        ("raise SystemExit('the dictionary is missing')", {}, "the dictionary is missing"),
        ("import time; time.sleep(60)", {"timeout_seconds": 1.5}, "longer than 1.5 s"),
        ("x = bytearray(1 << 30)", {"memory_bytes": 256 << 20}, "MemoryError"),
        ("import sys; open(sys.argv[2], 'wb').write(bytes(80 << 20))", {}, "File too large"),
        ("pass", {}, "wrote no result"),
        ("import sys; open(sys.argv[2], 'w').write('{')", {}, "its result is wrong"),
        ("import sys; open(sys.argv[2], 'w').write('{\"scores\": {\"a\": {\"value\": NaN, \"n\": 4}}}')", {},
         "scores.a.value"),
        ("import sys, os; os.symlink('/dev/zero', sys.argv[2])", {}, "wrote no result"),
    ],
)  # fmt: skip
def test_a_program_that_fails_is_missing_by_name_in_its_own_words(room, text, limits, said):
    found = scored(room, [program(room, text, **limits)])
    own = found.metrics["own"]
    assert own.value is None and own.n == 0
    assert "plugin own" in own.why_missing and said in own.why_missing
    assert found.metrics["exact-match"].value == 0.0


def test_a_program_that_changes_its_copy_leaves_the_stored_answers_alone(room):
    result = json.dumps({"scores": {"a": {"missing": "-"}}})
    text = f"import sys; open(sys.argv[1], 'w'); open(sys.argv[2], 'w').write({result!r})"
    found = scored(room, [program(room, text)])
    kept = Path(found.predictions_uri.removeprefix("file://"))
    assert len(kept.read_text().splitlines()) == 4 and found.metrics["own/a"].why_missing == "-"
    assert not any((kept.parents[1] / "plugins").iterdir())


@pytest.mark.slow
def test_a_service_is_scored_by_its_url_and_judged_and_no_key_is_written_anywhere(room, fake_endpoint):
    fake_endpoint.script(replies=["{asked} [[8]]"])
    data = room.data(test=room.rows(4))
    ref = SecretKeyRef(name="keys", key="service")
    service = Endpoint(url=fake_endpoint.url, model="m", secret_ref=ref)
    judge = Judge(url=fake_endpoint.url, model="j", secret_ref=SecretKeyRef(name="keys", key="judge"))
    measure = room.measure(
        data, metrics=[Metric.EXACT_MATCH, Metric.JUDGE, Metric.PERPLEXITY], judge=judge,
        questions=[Question(question="own?", answer="own")],
    )  # fmt: skip
    plan = identified(
        RunType.SCORE, room.root_uri, {"score": ScorePlan(service=service, data=data, measure=measure)}
    )
    secrets = {"keys": {"service": "key-of-service", "judge": "key-of-judge"}}
    code, result = room.run(plan, **{CREDENTIALS: json.dumps(secrets)})
    assert code == 0, room.log(plan)
    metrics = result.scores[0].metrics
    assert (metrics["judge"].value, metrics["judge"].n) == (8.0, 5)
    assert (metrics["exact-match"].value, metrics["exact-match"].n) == (0.0, 5)
    assert metrics["perplexity"].value is None
    asked = fake_endpoint.asked
    assert [r["key"] for r in asked] == ["Bearer key-of-service"] * 5 + ["Bearer key-of-judge"] * 5
    assert asked[0]["body"]["max_tokens"] == 8
    for path in Path(room.root).rglob("*"):
        if path.is_file():
            assert b"key-of-" not in path.read_bytes() or path.name == "asked.jsonl", path


@pytest.mark.slow
def test_a_service_that_leaves_questions_unanswered_has_no_score_rather_than_a_low_one(room, fake_endpoint):
    fake_endpoint.script(status=500)
    data = room.data(test=room.rows(3))
    service = Endpoint(url=fake_endpoint.url, model="m", retries=0)
    measure = room.measure(data)
    plan = identified(
        RunType.SCORE, room.root_uri, {"score": ScorePlan(service=service, data=data, measure=measure)}
    )
    code, result = room.run(plan)
    found = result.scores[0].metrics["exact-match"]
    assert code == 0 and found.value is None
    assert "3 of 3 questions got no answer; row 0: HTTP 500" in found.why_missing


def test_a_judge_whose_key_is_not_there_is_not_asked(room, fake_endpoint):
    fake_endpoint.script()
    judge = Judge(url=fake_endpoint.url, model="j", secret_ref=SecretKeyRef(name="keys"))
    found = scored(room, metrics=[Metric.EXACT_MATCH, Metric.JUDGE], judge=judge)
    assert "Secret keys has no value 'token'" in found.metrics["judge"].why_missing
    assert found.metrics["exact-match"].value == 0.0 and not fake_endpoint.asked


@pytest.mark.slow
def test_a_worker_that_waits_for_a_service_or_a_plugin_leaves_at_once_when_it_is_told_to(room, fake_endpoint):
    fake_endpoint.script(sleep=60)
    data = room.data(test=room.rows(3))
    service = Endpoint(url=fake_endpoint.url, model="m", timeout_seconds=300)
    asking = ScorePlan(service=service, data=data, measure=room.measure(data))
    slow = room.measure(data, plugins=[program(room, "import time; time.sleep(300)")])
    waiting = ScorePlan(model=room.model, data=data, measure=slow, predictions_uri=stored(room).as_uri())
    for part, doing in ((asking, "asking m"), (waiting, "asking the plugin own")):
        plan = identified(RunType.SCORE, room.root_uri, {"score": part})
        worker = room.start(plan)
        room.wait_for(plan, lambda event, doing=doing: doing in (event.activity or ""))
        time.sleep(1)
        begun = time.monotonic()
        worker.terminate()
        assert worker.wait(timeout=30) == 3, room.log(plan)
        assert time.monotonic() - begun < 10 and room.result(plan).phase == "Stopped"
    left = [
        p
        for p in psutil.process_iter(["cmdline"])
        if str(room.root / "scorer.py") in (p.info["cmdline"] or [])
    ]
    assert not left
