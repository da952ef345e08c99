"""Parameter groups: what is left out is inherited, and what is written is checked."""

import pytest
from pydantic import ValidationError

from datatunerx.resources import Hyperparameter, TrainingParameters
from datatunerx.resources.enums import Method
from datatunerx.resources.material import HyperparameterSpec
from datatunerx.resources.training import ParameterOverrides, merge, resolve_parameters


def test_later_layers_win_field_by_field():
    merged = merge([{"lora": {"rank": 8, "alpha": 16}, "seed": 1}, {"lora": {"rank": 4}}])
    assert merged == {"lora": {"rank": 4, "alpha": 16}, "seed": 1}


def test_what_no_layer_says_is_the_default():
    parameters = resolve_parameters([{"learningRate": 1e-3}, {"lora": {"rank": 4}}])
    assert parameters.learning_rate == 1e-3
    assert parameters.lora.rank == 4
    assert parameters.lora.alpha == TrainingParameters().lora.alpha
    assert parameters.method is Method.LORA


def test_a_group_that_says_nothing_sends_nothing():
    assert Hyperparameter.parse({"metadata": {"name": "a"}, "spec": {}}).spec.dump() == {}


def test_overrides_have_every_field_of_the_parameters():
    assert ParameterOverrides.model_fields.keys() == TrainingParameters.model_fields.keys()
    assert HyperparameterSpec.model_fields.keys() == TrainingParameters.model_fields.keys() | {"extends"}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"learningRate": "fast"}, "learningRate"),
        ({"learningRate": 0}, "learningRate"),
        ({"lora": {"rank": 0}}, "rank"),
        ({"optimizer": "adam-of-the-day"}, "optimizer"),
        ({"learning_rat": 1}, "learning_rat"),
    ],
)
def test_a_bad_value_names_its_field(spec, field):
    with pytest.raises(ValidationError, match=field):
        HyperparameterSpec.model_validate(spec)


def test_help_says_the_default_in_words():
    assert "Default: 0.0002." in (ParameterOverrides.model_fields["learning_rate"].description or "")
