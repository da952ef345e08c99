"""`dtx tune` builds the objects that a manifest would say."""

from pathlib import Path

import pytest
import yaml

from datatunerx.cli.check import problems
from datatunerx.cli.errors import BadInput
from datatunerx.cli.text import as_yaml
from datatunerx.cli.tune import Request, build, parse_settings
from datatunerx.resources import FinetuneExperiment, Hyperparameter
from datatunerx.resources.training import resolve_parameters
from datatunerx.runs.compile import combinations


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "faq.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    return path


def asked(data, *settings, **more):
    return build(Request("org/model", str(data), settings, **more), Path.cwd())


def by_kind(objects, kind):
    return [body for body in objects if body["kind"] == kind]


def test_every_combination_is_a_group_that_extends_the_shared_one(data):
    objects = asked(data, "lora.rank=8,16", "learningRate=1e-4,5e-4", "epochs=1")
    base, *groups = by_kind(objects, "Hyperparameter")
    assert base["spec"] == {"epochs": 1}
    seen = [
        resolve_parameters([base["spec"], {k: v for k, v in g["spec"].items() if k != "extends"}])
        for g in groups
    ]
    assert [(p.lora.rank, p.learning_rate, p.epochs) for p in seen] == [
        (8, 1e-4, 1), (8, 5e-4, 1), (16, 1e-4, 1), (16, 5e-4, 1),
    ]  # fmt: skip
    assert {g["spec"]["extends"] for g in groups} == {base["metadata"]["name"]}
    [experiment] = by_kind(objects, "FinetuneExperiment")
    assert experiment["spec"]["matrix"]["hyperparameters"] == [g["metadata"]["name"] for g in groups]
    assert len(combinations(FinetuneExperiment.parse(experiment))) == 4


def test_without_settings_there_is_one_job(data):
    objects = asked(data)
    assert len(by_kind(objects, "Hyperparameter")) == 1
    assert len(combinations(FinetuneExperiment.parse(objects[-1]))) == 1


def test_the_same_request_makes_the_same_objects_and_another_one_others(data):
    once = asked(data, "lora.rank=8,16")
    assert asked(data, "lora.rank=8,16") == once
    assert asked(data, "lora.rank=8,32")[-1]["metadata"] != once[-1]["metadata"]
    data.write_text('{"prompt": "c", "completion": "d"}\n')
    changed = asked(data, "lora.rank=8,16")
    assert by_kind(changed, "Dataset")[0]["metadata"] != by_kind(once, "Dataset")[0]["metadata"]


def test_groups_that_share_a_name_share_their_content(data):
    def groups(*settings):
        return {g["metadata"]["name"]: g["spec"] for g in by_kind(asked(data, *settings), "Hyperparameter")}

    one, two = groups("lora.rank=8,16", "epochs=1"), groups("lora.rank=8,16", "epochs=2")
    assert not set(one) & set(two)


def test_a_folder_brings_its_splits(tmp_path):
    for name in ("train.jsonl", "valid.jsonl", "test-1.jsonl", "test-2.jsonl", "README.md"):
        (tmp_path / name).write_text("")
    splits = by_kind(asked(tmp_path), "Dataset")[0]["spec"]["subsets"][0]["splits"]
    names = {split: [uri.rpartition("/")[2] for uri in uris] for split, uris in splits.items()}
    assert names == {
        "train": ["train.jsonl"],
        "validate": ["valid.jsonl"],
        "test": ["test-1.jsonl", "test-2.jsonl"],
    }


def test_the_dry_run_can_be_applied_as_it_is_shown(data):
    objects = asked(
        data, "lora.rank=8,16", "learningRate=2e-5,1e-4", metrics=("field-accuracy",), samples=("2e-4",)
    )
    assert list(yaml.safe_load_all(as_yaml(objects))) == objects
    assert [problems(body) for body in objects] == [[]] * len(objects)
    for body in by_kind(objects, "Hyperparameter"):
        Hyperparameter.parse(body)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("lora.ranc=8", "--set lora.ranc: no such parameter; did you mean lora.rank?"),
        ("learningrate=1", "did you mean learningRate?"),
        ("learningRate=fast", '--set learningRate: must be a number, found "fast"'),
        ("lora.rank=8,0", "--set lora.rank: must be greater than or equal to 1, found 0"),
        ("lora.rank", "write it as key=value"),
        ("lora.rank=", "write it as key=value"),
        ("lora.rank=8,8", "the same value stands twice"),
        ("seed=" + ",".join(map(str, range(65))), "65 combinations"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_told_with_the_fix(setting, told):
    with pytest.raises(BadInput) as caught:
        parse_settings([setting])
    assert told in str(caught.value)


def test_a_list_is_written_with_plus_signs():
    [setting] = parse_settings(["lora.targets=q_proj+v_proj,all-linear"])
    assert setting.values == (["q_proj", "v_proj"], ["all-linear"])


def test_what_is_no_model_and_no_file_is_told(tmp_path):
    with pytest.raises(BadInput, match="no such file or folder"):
        build(Request("hf://a/b", "none.jsonl"), tmp_path)
    with pytest.raises(BadInput, match="no train file in this folder"):
        build(Request("hf://a/b", str(tmp_path)), tmp_path)
    with pytest.raises(BadInput, match="--llm: no such file"):
        build(Request("./nothing", str(tmp_path)), tmp_path)


def test_columns_under_other_names_are_mapped_and_make_another_dataset(data):
    [plain], [mapped] = (by_kind(asked(data, features=f), "Dataset") for f in ((), ("completion=reply",)))
    assert mapped["spec"]["features"] == [{"name": "completion", "mapTo": "reply"}]
    assert mapped["metadata"] != plain["metadata"]
    with pytest.raises(BadInput, match="write it as PART=COLUMN"):
        asked(data, features=("completion",))


def test_a_metric_takes_its_options_after_a_colon(data):
    objects = asked(data, metrics=["field-accuracy", "f1:field=category", "bleu:tokenizer=zh"])
    assert [problems(body) for body in objects] == [[]] * len(objects)
    (experiment,) = by_kind(objects, "FinetuneExperiment")
    assert experiment["spec"]["scoring"] == {
        "metrics": ["field-accuracy", "f1", "bleu"],
        "metricOptions": {"f1": {"field": "category"}, "bleu": {"tokenizer": "zh"}},
    }
    with pytest.raises(BadInput, match="f1:option=value"):
        asked(data, metrics=["f1:category"])


def test_early_stopping_takes_its_settings_after_a_colon(data):
    def stopping(text):
        return asked(data, early_stop=text)[-1]["spec"]["earlyStopping"]

    assert stopping("3") == {"patience": 3}
    told = stopping("5:measure=score,minDelta=0.01,limit=16")
    assert told == {"patience": 5, "measure": "score", "minDelta": 0.01, "limit": 16}
    for text, why in (
        ("0", "spec.earlyStopping.patience"),
        ("3:measure=accuracy", "spec.earlyStopping.measure: must be one of loss, score"),
        ("3:pace=1", "spec.earlyStopping.pace: unknown field"),
        ("3:score", "write it as 3, or as 3:measure=score"),
    ):
        with pytest.raises(BadInput, match=why):
            stopping(text)


def test_early_stopping_that_could_never_act_is_refused_before_anything_is_started(data):
    with pytest.raises(BadInput, match="earlyStopping: evalEvery is 50 .* about 40 steps.* below 40"):
        asked(data, "maxSteps=40,400", "evalEvery=50", early_stop="3")
    with pytest.raises(BadInput, match="earlyStopping: saveEvery is 50 .* about 40 steps"):
        asked(data, "maxSteps=40", "saveEvery=50", early_stop="3")
    assert asked(data, "maxSteps=40", "saveEvery=50", "evalEvery=10", early_stop="3")


def test_the_samples_system_prompt_is_the_experiments(data):
    plain, told = (asked(data, samples=["hi"], sample_system=text)[-1] for text in (None, "Be brief."))
    assert told["spec"]["sampleSystemPrompt"] == "Be brief." and "sampleSystemPrompt" not in plain["spec"]
    assert plain["metadata"]["name"] != told["metadata"]["name"]
