"""Faults of a manifest are told by file, object and field, with the fix, before anything is sent."""

import pytest

from datatunerx.cli.check import checked
from datatunerx.cli.documents import parse
from datatunerx.cli.errors import BadInput

HEAD = "apiVersion: datatunerx.io/v1beta1\n"


def faults(text, folder):
    with pytest.raises(BadInput) as caught:
        checked(parse(HEAD + text, "x.yaml", folder))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "kind: Hyperparameter\nmetadata: {name: a}\nspec: {learningRate: fast}",
            'x.yaml: Hyperparameter/a: spec.learningRate: must be a number, found "fast"',
        ),
        (
            "kind: Hyperparameter\nmetadata: {name: a}\nspec: {learningRate: '2e-4'}",
            'x.yaml: Hyperparameter/a: spec.learningRate: must be a number, found "2e-4"',
        ),
        (
            "kind: Hyperparameter\nmetadata: {name: a}\nspec: {lora: {rank: 0}}",
            "x.yaml: Hyperparameter/a: spec.lora.rank: must be greater than or equal to 1, found 0",
        ),
        (
            "kind: Hyperparameter\nmetadata: {name: a}\nspec: {learningrate: 1.0}",
            "x.yaml: Hyperparameter/a: spec.learningrate: unknown field; did you mean learningRate?",
        ),
        (
            "kind: Hyperparameter\nmetadata: {name: a}\nspec: {scheduler: cosin}",
            "x.yaml: Hyperparameter/a: spec.scheduler: must be one of cosine, linear, constant, "
            'found "cosin"; did you mean cosine?',
        ),
        (
            "kind: Dataset\nmetadata: {name: d}\nspec: {subsets: [{splits: {tain: [a]}}]}",
            "x.yaml: Dataset/d: spec.subsets[0].splits.tain: unknown field; did you mean train?",
        ),
        (
            "kind: FinetuneExperiment\nmetadata: {name: e}\nspec: {scoring: {metrics: [fild-accuracy]}}",
            "did you mean field-accuracy?",
        ),
        (
            "kind: Finetun\nmetadata: {name: f}",
            "kind: Finetun is not a kind of datatunerx.io; did you mean Finetune?",
        ),
        (
            "kind: LLM\nspec: {source: hf://a/b}",
            "x.yaml: LLM/?: metadata.name: missing; give the object a name",
        ),
        (
            "kind: LLM\nmetadata: {name: My Model}\nspec: {source: hf://a/b}",
            "x.yaml: LLM/My Model: metadata.name: must be at most 253 of a-z, 0-9, - and .,",
        ),
        (
            "kind: LLM\nmetadata: {name: 7}\nspec: {source: hf://a/b}",
            "metadata.name: must be text, found 7; put it in quotes",
        ),
        (
            "kind: LLM\nmetadata: {name: m}\nspec: {source: some/model}",
            "write hf://some/model for the Hugging Face hub, or ./some/model for a folder",
        ),
        (
            "kind: LLM\nmetadata: {name: m}\nspec: {source: 'hff://a/b'}",
            "hff:// is not known; did you mean hf?",
        ),
    ],
)
def test_a_fault_names_file_object_field_and_fix(text, told, tmp_path):
    assert any(told in line for line in faults(text, tmp_path))


def test_the_words_that_a_field_takes_are_told_once(tmp_path):
    [told] = faults("kind: Hyperparameter\nmetadata: {name: a}\nspec: {optimizer: zzzz}", tmp_path)
    assert told.endswith('spec.optimizer: must be one of adamw, sgd, found "zzzz"')


def test_every_fault_of_every_document_is_told_at_once(tmp_path):
    text = (
        "kind: Hyperparameter\nmetadata: {name: a}\nspec: {batchSize: 1.5, epochs: many}\n---\n"
        + HEAD
        + "kind: LLM\nmetadata: {name: m}\nspec: {}"
    )
    told = faults(text, tmp_path)
    assert [line.split(": ")[2] for line in told] == ["spec.epochs", "spec.batchSize", "spec.source"]


def test_relative_paths_start_at_the_manifests_folder(tmp_path):
    (tmp_path / "my data.jsonl").write_text("{}")
    (tmp_path / "model").mkdir()
    text = (
        HEAD + "kind: Dataset\nmetadata: {name: d}\nspec: {subsets: [{splits: {train: ['my data.jsonl', hf://a/b]}}]}"
        "\n---\n" + HEAD + "kind: LLM\nmetadata: {name: m}\nspec: {source: ./model}"
    )  # fmt: skip
    dataset, llm = checked(parse(text, "x.yaml", tmp_path))
    assert dataset["spec"]["subsets"][0]["splits"]["train"] == [
        (tmp_path / "my data.jsonl").as_uri(),
        "hf://a/b",
    ]
    assert llm["spec"]["source"] == (tmp_path / "model").as_uri()


def test_a_checkpoint_is_a_source_of_models_and_none_of_data(tmp_path):
    model = HEAD + "kind: LLM\nmetadata: {name: m}\nspec: {source: 'checkpoint://tickets-r8'}"
    [body] = checked(parse(model, "x.yaml", tmp_path))
    assert body["spec"]["source"] == "checkpoint://tickets-r8"
    data = "kind: Dataset\nmetadata: {name: d}\nspec: {subsets: [{splits: {train: ['checkpoint://x']}}]}"
    [told] = faults(data, tmp_path)
    assert "train[0]: checkpoint:// is not known" in told


def test_a_file_that_is_not_there_is_a_fault(tmp_path):
    text = "kind: Dataset\nmetadata: {name: d}\nspec: {subsets: [{splits: {train: [x.jsonl]}}]}"
    [told] = faults(text, tmp_path)
    assert told == f"x.yaml: Dataset/d: spec.subsets[0].splits.train[0]: no such file: {tmp_path}/x.jsonl"


def test_kinds_of_others_are_the_servers_to_judge(tmp_path):
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}"
    [body] = checked(parse(text, "x.yaml", tmp_path))
    assert body["stringData"] == {"a": "b"}
