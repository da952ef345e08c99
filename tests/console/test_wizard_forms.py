"""The form comes from the models: every field, its range, its help in both languages, and when it matters."""

import pytest
from pydantic import Field

from datatunerx.console import forms
from datatunerx.console.host import Host
from datatunerx.console.wizard.choices import address, closed, note, off, why_not
from datatunerx.console.wizard.draft import Draft
from datatunerx.console.words import catalogue
from datatunerx.resources.enums import Method, Precision
from datatunerx.resources.experiment import FinetuneExperimentSpec
from datatunerx.resources.training import TrainingParameters, resolve_parameters
from datatunerx.runs.grid import grid, setting_keys

CPU = Host(0, 1, 8 << 30, 50 << 30, Precision.FLOAT32)


def say(text, **values):
    return text.format(**values)


def test_every_field_has_its_help_in_both_languages_and_nothing_else_has():
    fields = forms.by_key()
    assert [key for key, field in fields.items() if not field.help] == []
    assert forms.chinese().keys() == fields.keys()
    for key, words in forms.chinese().items():
        assert words.keys() == {"label", "help"} and all(words.values()), key


def test_what_is_no_field_stands_in_a_group_that_there_is():
    groups = {title for title, _ in forms.GROUPS}
    assert {each.group for each in forms.ALWAYS} <= groups
    assert {each.title for each in forms.ALWAYS} | {each.text for each in forms.ALWAYS} <= catalogue().keys()


def test_every_parameter_of_a_training_can_be_set():
    asked = {field.key for field in forms.parameters()} | {"method"}
    assert asked == set(setting_keys(TrainingParameters))


def test_a_new_field_of_the_model_appears_by_itself():
    class Tomorrow(TrainingParameters):
        neftune_alpha: float = Field(0.0, ge=0, le=15, description="Noise on the embeddings.")

    found = {field.key: field for field in forms._fields(Tomorrow, several=True)}
    made = found["neftuneAlpha"]
    assert (made.form, made.low, made.high, made.group) == ("number", 0, 15, forms.OTHERS)
    assert made.label("en") == "Neftune alpha" and made.said("en") == "Noise on the embeddings."


@pytest.mark.parametrize(
    ("key", "typed", "told"),
    [
        ("learningRate", "abc", "abc is not a number"),
        ("learningRate", "0", "0 is outside: more than 0, at most 10"),
        ("learningRate", "1e-4, 11", "11 is outside"),
        ("learningRate", "nan", "nan is outside"),
        ("learningRate", "1e-4 1e-4", "the same value stands twice"),
        ("lora.rank", "8.5", "8.5 is not a whole number"),
        ("lora.rank", "1e400", "is not a whole number"),
        ("lora.rank", "2000", "2000 is outside: 1 to 1,024"),
        ("lora.dropout", "1", "1 is outside: at least 0, less than 1"),
        ("scheduler", "step", "step is none of: cosine, linear, constant"),
        ("resources.memory", "lots", "lots is not written as this field wants it"),
    ],
)
def test_a_wrong_value_is_told_at_its_field(key, typed, told):
    found = forms.faults({key: [typed]}, "lora", say)
    assert list(found) == [key] and told in found[key]


def test_what_the_form_takes_the_model_takes():
    for field in forms.parameters():
        ends = [value for value in (field.low, field.high) if value is not None]
        inside = [v for v in ends if v != (field.low if field.open_low else None)]
        for text in [
            *map(str, field.choices),
            *(f"{v:g}" for v in inside if not field.open_high),
            field.shown_default,
        ]:
            if not text or forms.fault(field, text, say):
                continue
            spec: dict = {}
            forms.put(spec, field.key, forms.value_of(field, text))
            resolve_parameters([spec])  # raises what it refuses


def test_what_cannot_matter_is_not_asked():
    def shown(method, **typed):
        return {f.key for f in forms.parameters() if forms.matters(f, typed, method)}

    assert {"lora.rank", "beta1"} <= shown("lora") and "quantization" not in shown("lora")
    assert "quantization" in shown("qlora")
    assert not any(key.startswith("lora.") for key in shown("full"))
    assert "beta1" not in shown("lora", optimizer=["sgd"])
    assert "beta1" in shown("lora", optimizer=["sgd", "adamw"])
    assert "truncateSide" not in shown("lora", tooLong=["drop"])


def test_values_make_one_job_each_and_defaults_are_left_out():
    typed = {"lora.rank": ["8, 16"], "learningRate": ["1e-3 5e-4"], "epochs": ["3"], "beta1": ["0.8"]}
    groups = grid(forms.several(typed, "lora"))
    jobs = [spec for _, spec in groups if "extends" in spec]
    assert [(job["learningRate"], job["lora"]["rank"]) for job in jobs] == [
        (1e-3, 8), (1e-3, 16), (5e-4, 8), (5e-4, 16),
    ]  # fmt: skip
    assert groups[0][1] == {"beta1": 0.8}  # 3 epochs are the default
    assert groups[1][0].startswith("lr1e-3-r8-")


def test_settings_of_the_experiment_are_as_its_model_wants_them():
    typed = {
        "samples": ["Say hello.\n\nSay goodbye."], "scoring.metrics": ["f1", "bleu"], "baseline": ["false"],
        "scoring.generation.maxNewTokens": ["8"], "resources.accelerators": ["0"], "scoring.split": ["test"],
        "sampleSystemPrompt": ["Be brief."], "earlyStopping.measure": [""],
    }  # fmt: skip
    spec = forms.spec_of(typed)
    assert spec == {
        "scoring": {"metrics": ["f1", "bleu"], "generation": {"maxNewTokens": 8}},
        "baseline": False,
        "samples": ["Say hello.", "Say goodbye."],
        "sampleSystemPrompt": "Be brief.",
    }
    FinetuneExperimentSpec.model_validate(spec)


def test_a_part_that_is_off_by_itself_is_on_with_the_first_of_its_fields():
    assert forms.by_key()["earlyStopping.patience"].shown_default == ""
    spec = forms.spec_of({"earlyStopping.patience": ["3"], "earlyStopping.measure": [""]})
    assert spec == {"earlyStopping": {"patience": 3}}  # also where it is what patience is by itself
    assert not any(key.startswith("scoring.judge.") for key in forms.by_key())


@pytest.mark.parametrize("method", [method.value for method in Method])
def test_every_preset_is_without_fault_and_sets_only_what_matters(method):
    for name, preset in forms.PRESETS[method].items():
        typed = {key: [text] for key, text in preset.items()}
        assert forms.faults(typed, method, say) == {}, name
        assert all(forms.matters(forms.by_key()[key], typed, method) for key in preset), name


def test_what_needs_a_gpu_says_so_where_there_is_none():
    with_gpu = CPU._replace(gpus=1)
    assert "needs a GPU" in why_not("quantization", "int4", say, CPU)
    assert "needs a GPU" not in why_not("quantization", "int4", say, with_gpu)
    assert why_not("method", "lora", say, CPU) == ""
    asked = forms.by_key()["resources.accelerators"]
    assert "needs a GPU" in note(asked, say, CPU) and off(asked, Draft(), CPU)
    assert not off(asked, Draft(), with_gpu) and not off(asked, Draft(), None)
    assert not off(asked, Draft(values={asked.key: ["1"]}), CPU)  # set elsewhere: it can be taken back
    assert note(asked, say, with_gpu) == "GPUs of this machine: 1"
    assert note(forms.by_key()["seed"], say, CPU) == ""
    assert why_not("scheduler", "linear", say, CPU) == ""
    assert [len(values) for values in closed(forms.by_key()["quantization"], say, CPU).values()] == [2]


@pytest.mark.parametrize(
    ("typed", "uri"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "hf://Qwen/Qwen2.5-0.5B-Instruct"),
        ("org/name@main", "hf://org/name@main"),
        ("/data/my model", "file:///data/my%20model"),
        ("s3://bucket/x", "s3://bucket/x"),
        (" ", ""), ("/", ""), ("../x", ""), ("just-a-name", ""), ("a/b/c", ""),
    ],
)  # fmt: skip
def test_a_model_is_named_by_path_hub_name_or_uri(typed, uri):
    assert address(typed, "hf://") == uri
