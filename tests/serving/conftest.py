"""An endpoint over a tiny random Llama and two adapters, asked by the official client."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest
import torch
from openai import OpenAI
from tokenizers import Tokenizer

from datatunerx.data import ChatTemplate
from datatunerx.modeling.adapters import Adapter, AdapterShape, make_adapter
from datatunerx.modeling.base import Base, load_base
from datatunerx.serving.app import Service, create_app
from datatunerx.serving.catalogue import Catalogue, Identity, Model, template_digest
from datatunerx.serving.endpoint import Endpoint
from datatunerx.serving.engine import Engine, Load

torch.set_num_threads(1)
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="session")
def base(tiny_model) -> Base:
    return load_base(tiny_model)


def _adapter(base: Base, seed: int) -> Adapter:
    adapter = make_adapter(f"adapter-{seed}", AdapterShape(rank=2 + seed), base.widths, seed=seed)
    drawn = torch.randn(adapter.flat.shape, generator=torch.Generator().manual_seed(seed))
    adapter.flat.copy_(drawn * 0.3)
    return adapter


@pytest.fixture(scope="session")
def template(tiny_model) -> ChatTemplate:
    return ChatTemplate.load(tiny_model)


@dataclass
class Served:
    """A service and its clients."""

    service: Service
    endpoint: Endpoint
    adapters: dict[str, Adapter | None]

    @property
    def url(self) -> str:
        return self.endpoint.url

    def client(self) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=TOKEN, max_retries=0, timeout=60)

    def http(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.url.removesuffix("/v1"), headers={"authorization": f"Bearer {TOKEN}"}, timeout=60
        )

    def wait_until_asked(self) -> None:
        self._wait_for(lambda load: load.requests > 0)

    def wait_until_free(self) -> None:
        self._wait_for(lambda load: load.requests == 0)

    def _wait_for(self, wanted: Callable[[Load], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not wanted(load := self.service.engine.load):
            assert time.monotonic() < end, f"still in hand: {load}"
            time.sleep(0.02)


@pytest.fixture
def serve(base, tiny_model):
    """Starts a service; further settings go to its engine."""
    started = []

    def start(names=("base", "one", "two"), base=base, folder=tiny_model, **settings) -> Served:
        template = ChatTemplate.load(folder)
        settings = {"cache_tokens": 16_384, "max_rows": 32, "max_waiting": 512} | settings
        engine = Engine(base, **settings)
        service = Service(engine, Catalogue(), Tokenizer.from_file(str(folder / "tokenizer.json")))
        adapters = {name: _adapter(base, n) if n else None for n, name in enumerate(names)}
        models = {}
        for name, adapter in adapters.items():
            identity = Identity("b" * 64, adapter and f"{name}-digest", template_digest(template), "float32")
            models[name] = Model(name, adapter, template, identity, 0)
        service.catalogue.replace(models, [])
        endpoint = Endpoint(create_app(service, TOKEN))
        engine.start()
        endpoint.start()
        served = Served(service, endpoint, adapters)
        started.append(served)
        return served

    yield start
    for served in started:
        served.service.engine.close()
        served.endpoint.stop()


@pytest.fixture
def served(serve) -> Served:
    return serve()


@pytest.fixture
def client(served):
    with served.client() as client:
        yield client


@pytest.fixture
def patient_base(base, monkeypatch) -> Base:
    """The same model, whose answers have no end of their own: they are there to be interrupted."""
    monkeypatch.setattr(ChatTemplate, "stop_ids", [])
    patient = copy.copy(base)
    patient.config = copy.copy(base.config)
    patient.config.max_position_embeddings = 100_000
    return patient
