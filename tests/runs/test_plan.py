"""Plans: the same content is the same plan, another attempt is another."""

import pytest
from pydantic import ValidationError

from datatunerx.resources.enums import Metric, RunType, Split
from datatunerx.runs import InspectModelPlan, MeasurePlan, RunPlan, RunResult, ScoreOutcome
from datatunerx.runs.commands import Command, Verb
from datatunerx.runs.plan import digest_of, identified

MODEL = InspectModelPlan(source="file:///m")


def plan(content=MODEL, salt="", root="file:///data"):
    return identified(RunType.INSPECT, root, {"inspect_model": content}, salt)


def test_the_same_content_is_the_same_plan():
    assert plan() == plan()
    assert plan().id != plan(InspectModelPlan(source="file:///other")).id
    assert plan().id != plan(salt="attempt 2").id


def test_a_plan_survives_its_file():
    assert RunPlan.model_validate_json(plan().model_dump_json(by_alias=True)) == plan()


def test_a_plan_has_exactly_one_part():
    document = plan().dump()
    del document["inspectModel"]
    with pytest.raises(ValidationError, match="exactly one part"):
        RunPlan.model_validate(document)


def test_a_measure_is_known_by_what_it_says():
    one = MeasurePlan(data="tickets", metrics=[Metric.EXACT_MATCH])
    assert one.key() == MeasurePlan(data="tickets", metrics=[Metric.EXACT_MATCH], split=Split.TEST).key()
    assert one.key() != MeasurePlan(data="tickets", metrics=[Metric.BLEU]).key()


def test_a_score_is_found_by_subject_and_measure():
    outcome = ScoreOutcome(subject="a", measure="m", metrics={}, predictions_uri="file:///p")
    result = RunResult(plan_id="p", phase="Succeeded", scores=[outcome])
    assert result.score("a", "m") == outcome
    assert result.score("", "m") is None


def test_saying_a_command_twice_is_saying_it_once():
    assert Command(verb=Verb.STOP, job="a").file_name == Command(verb=Verb.STOP, job="a").file_name
    assert Command(verb=Verb.SAVE, job="a", nonce="2").file_name == "save-a-2.json"


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
