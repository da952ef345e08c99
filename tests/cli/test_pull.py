"""`dtx pull`: an export of the server lies on this machine, and what is there already is left alone."""

import hashlib
import json
import os

import pytest

from datatunerx.cli.errors import BadInput, CommandError
from datatunerx.cli.pull import pull
from datatunerx.client import Api
from datatunerx.client.api import Plural
from datatunerx.client.transport import InProcess
from datatunerx.resources.crds import crd_manifests
from datatunerx.resources.wire import GROUP, VERSION
from datatunerx.server.app import create_app
from datatunerx.server.state import open_state

CHECKPOINTS = Plural(GROUP, VERSION, "llmcheckpoints")
WEIGHTS = os.urandom(100_003)


@pytest.fixture
async def api(tmp_path):
    """A server with a checkpoint and two exports, one of them ended."""
    state, data = open_state(tmp_path / "server"), tmp_path / "server" / "data"
    app = create_app(state.store, crd_manifests(), tokens=state.tokens, log_root=data)
    await app.start()
    api = Api(InProcess(app))
    exports = [{"name": "gguf", "to": "gguf"}, {"name": "hf", "to": "hf"}]
    spec = {"finetune": "t", "llm": "m", "dataset": "d", "uri": "file:///t", "step": 1, "exports": exports}
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "LLMCheckpoint", "metadata": {"name": "tickets"}}
    made = await api.create_raw(CHECKPOINTS, body | {"spec": spec})
    told = [{"name": "gguf", "phase": "Succeeded"}, {"name": "hf", "phase": "Running"}]
    await api.patch_status(CHECKPOINTS, "tickets", {"status": {"exports": told}})
    folder = data / "exports" / made["metadata"]["uid"] / "gguf"
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(WEIGHTS)
    noted = {"model.gguf": {"sha256": hashlib.sha256(WEIGHTS).hexdigest()}}
    (folder / "export.json").write_text(json.dumps({"files": noted}))
    yield api
    await app.stop()
    await state.store.close()


async def test_the_only_export_is_pulled_and_again_costs_nothing(api, tmp_path, capsys):
    home = tmp_path / "home"
    await pull(api, "ckpt/tickets", None, "default", to=home, file=None)
    assert (home / "model.gguf").read_bytes() == WEIGHTS and (home / "export.json").exists()
    assert "2 files, 0.1 MB; SHA-256 of 1 are those of the record" in capsys.readouterr().out
    before = (home / "model.gguf").stat()
    await pull(api, "tickets", "gguf", "default", to=home, file="model.gguf")
    assert (home / "model.gguf").stat() == before and len(list(home.iterdir())) == 2


async def test_what_cannot_be_pulled_says_what_there_is(api, tmp_path):
    with pytest.raises(BadInput, match="the export has export.json, model.gguf"):
        await pull(api, "tickets", None, "default", to=tmp_path / "home", file="model.bin")
    with pytest.raises(Exception, match="export hf of tickets is Running"):
        await pull(api, "tickets", "hf", "default", to=tmp_path / "home", file=None)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="is no folder"):
        await pull(api, "tickets", None, "default", to=tmp_path / "file", file=None)
    with pytest.raises(CommandError, match="there is no checkpoint 'nothing'"):
        await pull(api, "nothing", None, "default", to=None, file=None)
