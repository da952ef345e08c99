"""Files as an OCI image layout, read and pushed by a program that knows nothing of us."""

import hashlib
import json
import random

import pytest
from oras.client import OrasClient
from oras.layout.layout import Layout

from datatunerx.storage import Forbidden, StorageError
from datatunerx.storage.layout import blob, lay_out
from datatunerx.storage.registry import TargetExists, must_be_free, push
from datatunerx.storage.remote import Credentials

FILES = {
    "weights.safetensors": random.Random(1).randbytes(40_000), "empty.txt": b"", "tokens.json": b'{"a": 1}',
    "export.json": b'{"version": 1}', "twin.json": b'{"version": 1}',
}  # fmt: skip
ANN = Credentials({"username": "ann", "password": "pass-word-1"}, name="right")


@pytest.fixture
def laid(tmp_path):
    """(folder of a layout, digest of its manifest)"""
    folder = tmp_path / "made"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder, lay_out(folder, sorted(folder.iterdir()), folder / "export.json")


def test_a_layout_is_read_back_blob_by_blob_by_its_digests(laid):
    folder, digest = laid
    assert sorted(path.name for path in folder.iterdir()) == ["blobs", "index.json", "oci-layout"]
    Layout(str(folder)).validate()
    ordered = Layout(str(folder)).get_ordered_blobs()
    assert ordered[-1] == digest
    assert {path.name for path in (folder / "blobs/sha256").iterdir()} == {d[7:] for d in ordered}
    for one in ordered:
        assert "sha256:" + hashlib.sha256(blob(folder, one).read_bytes()).hexdigest() == one

    manifest = json.loads(blob(folder, digest).read_bytes())
    found = {
        layer["annotations"]["org.opencontainers.image.title"]: blob(folder, layer["digest"]).read_bytes()
        for layer in manifest["layers"]
    }
    assert found == FILES
    assert all(layer["size"] == blob(folder, layer["digest"]).stat().st_size for layer in manifest["layers"])
    assert blob(folder, manifest["config"]["digest"]).read_bytes() == FILES["export.json"]
    assert manifest["config"]["mediaType"].startswith("application/vnd.datatunerx")


def test_what_is_pushed_has_the_layouts_digest_and_comes_back_whole(laid, registry, tmp_path):
    folder, digest = laid
    uri = f"oci://{registry}/team/model:v1"
    with pytest.raises(Forbidden, match="does not take the username and password of Secret wrong"):
        must_be_free(uri, Credentials({"username": "ann", "password": "no"}, name="wrong"), plain_http=True)
    must_be_free(uri, ANN, plain_http=True)
    assert push(uri, folder, ANN, plain_http=True) == digest
    with pytest.raises(TargetExists, match="there is such a tag already"):
        must_be_free(uri, ANN, plain_http=True)
    client = OrasClient(hostname=registry, insecure=True, auth_backend="basic")
    client.auth.set_basic_auth("ann", "pass-word-1")
    pulled = client.pull(f"{registry}/team/model:v1", outdir=str(tmp_path / "pulled"))
    assert {path.rsplit("/")[-1] for path in pulled} == set(FILES)
    for name, content in FILES.items():
        assert (tmp_path / "pulled" / name).read_bytes() == content


def test_another_client_pushes_the_layout_as_it_lies(laid, registry):
    folder, digest = laid
    client = OrasClient(hostname=registry, insecure=True, auth_backend="basic")
    client.auth.set_basic_auth("ann", "pass-word-1")
    Layout(str(folder)).push_to_registry(client, f"{registry}/team/copied:v2")
    asked = f"http://{registry}/v2/team/copied/manifests/v2"
    answer = client.do_request(asked, "GET", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
    assert "sha256:" + hashlib.sha256(answer.content).hexdigest() == digest


def test_a_blob_that_is_not_what_its_name_says_is_not_taken(laid, registry):
    folder, _ = laid
    blob(folder, "sha256:" + hashlib.sha256(FILES["weights.safetensors"]).hexdigest()).write_bytes(b"other")
    uri = f"oci://{registry}/team/damaged:v1"
    with pytest.raises(StorageError, match="did not take it"):
        push(uri, folder, ANN, plain_http=True)
    must_be_free(uri, ANN, plain_http=True)
