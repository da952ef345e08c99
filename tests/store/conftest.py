"""A real store on a real disk."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from datatunerx.store import Key, Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store.open(tmp_path / "db")
    yield store
    await store.close()


@pytest.fixture
def make() -> Callable[..., dict[str, Any]]:
    def make(name: str, **fields: Any) -> dict[str, Any]:
        return {"metadata": {"name": name}, **fields}

    return make


@pytest.fixture
def key() -> Callable[..., Key]:
    def key(name: str, resource: str = "things.example.com", namespace: str = "default") -> Key:
        return Key(resource, namespace, name)

    return key
