from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from datatunerx.modeling.base import freeze
from datatunerx.resources.training import TrainingParameters
from datatunerx.training.lanes import Job
from datatunerx.training.loop import train

torch.set_num_threads(1)

VOCABULARY = 96


@pytest.fixture
def make_base():
    def make(dtype=torch.float32, intermediate_size=48):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=intermediate_size, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        )  # fmt: skip
        return freeze(LlamaForCausalLM(config).to(dtype).eval())

    return make


@pytest.fixture
def make_rows():
    def make(count, seed=0, shortest=4, longest=20):
        generator = torch.Generator().manual_seed(seed)
        rows = []
        for _ in range(count):
            length = int(torch.randint(shortest, longest + 1, (1,), generator=generator))
            ids = torch.randint(0, VOCABULARY, (length,), generator=generator, dtype=torch.int32)
            labels = ids.clone()
            labels[: length // 3] = -100
            rows.append((ids.numpy(), labels.numpy()))
        return rows

    return make


@pytest.fixture
def make_job(tmp_path: Path, make_rows):
    def make(name, rows=None, *, folder=None, validate=(), samples=(), row_names=None, **parameters):
        parameters = {"learning_rate": 1e-2, "batch_size": 4, "max_steps": 6, "save_every": 1000} | parameters
        return Job(
            name=name,
            parameters=TrainingParameters.model_validate(parameters),
            rows=make_rows(20, seed=len(name)) if rows is None else rows,
            folder=folder or tmp_path / name,
            validate=validate,
            samples=samples,
            row_names=row_names,
        )

    return make


class Watched:
    """A training and what it told."""

    def __init__(self):
        self.events = []

    def run(self, base, jobs, **settings):
        return train(base, jobs, on_event=self.events.append, **({"capacity": 64} | settings))

    def values(self, job, key):
        return [e.values[key] for e in self.events if e.job == job and e.values and key in e.values]

    def of_type(self, type, job=None):
        return [e for e in self.events if e.type == type and job in (None, e.job)]


@pytest.fixture
def watched():
    return Watched()
