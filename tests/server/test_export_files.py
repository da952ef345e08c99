"""An export is fetched whole, as a tar or by parts; by who may, and nothing that is not of it."""

import hashlib
import io
import json
import os
import tarfile

import pytest

from datatunerx.client import Api
from datatunerx.client.errors import ApiError
from datatunerx.client.exports import Export, fetch, files
from datatunerx.client.transport import InProcess
from datatunerx.resources.crds import crd_manifests
from datatunerx.server import export_files
from datatunerx.server.app import create_app

PATH = "/apis/datatunerx.io/v1beta1/namespaces/default/llmcheckpoints"
GGUF = os.urandom(3 * export_files.PART + 4321)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
async def app(state, root, tmp_path):
    app = create_app(
        state.store, crd_manifests(), tokens=state.tokens, log_root=root, allow_paths=[tmp_path / "opened"]
    )
    await app.start()
    yield app
    await app.stop()
    await state.store.close()


async def _made(api, entry, phase="Succeeded"):
    """A checkpoint with one export; its uid."""
    spec = {"finetune": "t", "llm": "m", "dataset": "d", "uri": "file:///artifacts/t", "step": 1}
    spec["exports"] = [{"name": "gguf", "to": "gguf"} | entry]
    body = {"apiVersion": "datatunerx.io/v1beta1", "kind": "LLMCheckpoint", "metadata": {"name": "c"}}
    made = (await api.post(PATH, body | {"spec": spec})).ok()
    told = {
        "status": {
            "exports": [{"name": "gguf", "phase": phase, "outcome": {"uri": "file:///etc", "digest": "0"}}]
        }
    }
    (await api.patch(f"{PATH}/c/status", told)).ok()
    return made["metadata"]["uid"]


def _written(folder):
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(GGUF)
    (folder / "README.md").write_text("# tickets")
    noted = {"model.gguf": {"bytes": len(GGUF), "sha256": hashlib.sha256(GGUF).hexdigest()}}
    (folder / "export.json").write_text(json.dumps({"files": noted}))
    (folder / "escape").symlink_to("/etc/passwd")
    return folder


@pytest.fixture
async def exported(api, root):
    """Its folder, where the platform puts it. The status names another: it counts for nothing."""
    return _written(root / "exports" / await _made(api, {}) / "gguf")


URL = f"{PATH}/c/files?export=gguf"


@pytest.mark.parametrize(("to", "type"), [("adapter", "f16"), ("hf", "q8_0"), ("hf", "q4_k_m")])
async def test_weights_that_a_form_does_not_store_are_refused_at_once(api, to, type):
    await _made(api, {"type": "q8_0"})
    asked = {"name": "x", "to": to, "type": type}
    answer = await api.patch(f"{PATH}/c", {"spec": {"exports": [asked]}})
    assert answer.status == 422 and "other types are of gguf and ollama" in answer.body.decode()


async def test_a_wish_of_an_older_release_stays_as_the_record(api):
    """It was refused by the worker then; a checkpoint that has it takes others."""
    await _made(api, {"to": "hf", "type": "q8_0"})  # as if: a rule of change is asked of no new object
    there = (await api.get(f"{PATH}/c")).ok()["spec"]["exports"]
    more = [*there, {"name": "home", "to": "gguf", "type": "q8_0"}]
    assert len((await api.patch(f"{PATH}/c", {"spec": {"exports": more}})).ok()["spec"]["exports"]) == 2


async def test_its_files_are_named_with_their_digests_and_links_are_none_of_them(api, exported):
    found = (await api.get(URL)).ok()["files"]
    assert [each["path"] for each in found] == ["README.md", "export.json", "model.gguf"]
    assert found[2]["sha256"] == hashlib.sha256(GGUF).hexdigest()


@pytest.mark.parametrize("record", ["{", "[]", '{"files": {"model.gguf": {"bytes": 1}}}'])
async def test_a_damaged_record_is_told_and_not_taken_for_none(api, exported, record):
    (exported / "export.json").write_text(record)
    answer = await api.get(URL)
    assert answer.status == 500 and "export.json is damaged" in answer.json["message"]


async def test_a_file_comes_byte_by_byte_whole_and_by_range(api, exported):
    whole = await api.get(f"{URL}&path=model.gguf")
    assert (whole.status, whole.body) == (200, GGUF)
    assert whole.headers["content-length"] == str(len(GGUF))
    rest = await api.get(f"{URL}&path=model.gguf", range="bytes=2000000-")
    assert rest.status == 206 and rest.body == GGUF[2_000_000:]
    assert rest.headers["content-range"] == f"bytes 2000000-{len(GGUF) - 1}/{len(GGUF)}"
    last = await api.get(f"{URL}&path=model.gguf", range="bytes=-7")
    assert last.body == GGUF[-7:]
    beyond = await api.get(f"{URL}&path=model.gguf", range=f"bytes={len(GGUF)}-")
    assert beyond.status == 416 and "none of them" in beyond.json["message"]


async def test_whoever_goes_on_with_another_file_than_they_began_gets_all_of_it(api, exported):
    tag = (await api.get(f"{URL}&path=README.md")).headers["etag"]
    ask = {"range": "bytes=2-", "if-range": tag}
    assert (await api.get(f"{URL}&path=README.md", **ask)).body == b"tickets"
    (exported / "README.md").write_text("# another")
    got = await api.get(f"{URL}&path=README.md", **ask)
    assert (got.status, got.body) == (200, b"# another")


async def test_a_tar_holds_the_folder_and_can_be_gone_on_with_too(api, exported):
    whole = await api.get(f"{URL}&archive=tar")
    assert whole.headers["content-length"] == str(len(whole.body))
    with tarfile.open(fileobj=io.BytesIO(whole.body), mode="r:") as tar:
        assert tar.getnames() == ["c-gguf/README.md", "c-gguf/export.json", "c-gguf/model.gguf"]
        assert tar.extractfile("c-gguf/model.gguf").read() == GGUF
    for start in (100, 511, 600, 1536, 1_500_000):  # in heads, padding and files
        rest = await api.get(f"{URL}&archive=tar", range=f"bytes={start}-{start + 70_000}")
        assert rest.body == whole.body[start : start + 70_001]


@pytest.mark.parametrize(
    "path",
    ["../../../secret.key", "/etc/passwd", "escape", "model.gguf/..", "./model.gguf", "..%2fgguf/model.gguf"],
)
async def test_no_path_leads_out_of_the_export(api, exported, path):
    (exported.parents[2] / "secret.key").write_text("secret")
    got = await api.get(f"{URL}&path={path}")
    assert got.status == 404 and "has no file" in got.json["message"]


async def test_an_editor_may_take_a_model_home_and_a_viewer_may_not(caller, exported):
    editor, viewer = await caller("editor", "default"), await caller("viewer", "default")
    assert (await editor("GET", f"{URL}&path=README.md")).body == b"# tickets"
    for query in ("", "&path=README.md", "&archive=tar"):
        assert (await viewer("GET", URL + query)).status == 403
    stranger = await caller("editor", "other")
    assert (await stranger("GET", URL)).status == 403


async def test_what_was_put_elsewhere_is_for_who_may_name_files_there(api, caller, tmp_path):
    _written(tmp_path / "mine")
    await _made(api, {"uri": f"file://{tmp_path}/mine"})
    assert (await api.get(f"{URL}&path=model.gguf")).body == GGUF
    editor = await caller("editor", "default")
    got = await editor("GET", f"{URL}&path=model.gguf")
    assert got.status == 403 and "outside the folders opened to you" in got.json["message"]


async def test_an_image_layout_in_an_opened_folder_is_fetched_whole(api, caller, tmp_path):
    blobs = tmp_path / "opened" / "image" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    digest = hashlib.sha256(GGUF).hexdigest()
    (blobs / digest).write_bytes(GGUF)
    (blobs.parents[1] / "oci-layout").write_text("{}")
    await _made(api, {"uri": f"oci-layout://{tmp_path}/opened/image"})
    editor = await caller("editor", "default")
    found = (await editor("GET", URL)).ok()["files"]
    assert found[0] == {"path": f"blobs/sha256/{digest}", "size": len(GGUF), "sha256": digest}
    assert (await editor("GET", f"{URL}&path=blobs/sha256/{digest}")).body == GGUF


@pytest.mark.parametrize(
    ("entry", "phase", "code", "says"),
    [
        ({"uri": "oci://registry.example.com/team/c:v1"}, "Succeeded", 501, "fetch it there"),
        ({}, "Running", 404, "export gguf of c is Running"),
        ({"name": "other"}, "Succeeded", 404, "it has other"),
        ({}, "Succeeded", 404, "its files are gone"),
    ],
)
async def test_what_cannot_be_fetched_says_why(api, entry, phase, code, says):
    await _made(api, entry, phase)
    got = await api.get(URL)
    assert got.status == code and says in got.json["message"]


class _Breaks(InProcess):
    """Goes away after some requests, as a server that is restarted."""

    left = 2

    async def request(self, method, path, **rest):
        self.left -= 1
        if not self.left:
            raise ConnectionResetError
        return await super().request(method, path, **rest)


async def test_a_broken_fetch_goes_on_where_it_was_and_damage_is_seen(app, exported, tmp_path, monkeypatch):
    monkeypatch.setattr("datatunerx.client.exports.PART_BYTES", 1 << 20)
    export, home = Export("c", "gguf", "default"), tmp_path / "fetched"
    wanted = (await files(Api(InProcess(app)), export))[2]
    with pytest.raises(ConnectionResetError):
        await fetch(Api(_Breaks(app)), export, wanted, home)
    assert (home / "model.gguf.part").read_bytes() == GGUF[: 1 << 20]

    steps = []
    await fetch(Api(InProcess(app)), export, wanted, home, on_progress=lambda *told: steps.append(told))
    assert steps[0] == ("model.gguf", 1 << 20, len(GGUF)) and steps[-1][1] == len(GGUF)
    assert (home / "model.gguf").read_bytes() == GGUF and len(list(home.iterdir())) == 1

    (home / "model.gguf").write_bytes(b"mine")
    with pytest.raises(ApiError, match="nothing is overwritten"):
        await fetch(Api(InProcess(app)), export, wanted, home)
    (home / "model.gguf").unlink()
    (home / "model.gguf.part").write_bytes(b"other bytes")
    with pytest.raises(ApiError, match="SHA-256"):
        await fetch(Api(InProcess(app)), export, wanted, home)
    assert not list(home.iterdir())
