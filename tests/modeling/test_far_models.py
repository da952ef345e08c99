"""Base models from a bucket and from ModelScope: the same files as in a folder, and never its pickles."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from datatunerx.modeling.convert import prepare_model
from datatunerx.modeling.sources import UnusableModel
from datatunerx.storage.remote import Credentials


def put(s3, folder: Path) -> Credentials:
    for path in folder.iterdir():
        s3.put(f"data/models/tiny/{path.name}", path.read_bytes())
    return Credentials({"accessKeyId": "a", "secretAccessKey": "b"}, s3.url, "bucket")


def test_a_model_in_a_bucket_is_that_of_the_folder(s3, model_folder, tmp_path):
    who = put(s3, model_folder)
    s3.put("data/models/tiny/pytorch_model.bin", b"pickled")
    told: list[str] = []
    found = prepare_model("s3://data/models/tiny", tmp_path / "store", who, told.append)
    here = prepare_model(str(model_folder), tmp_path / "other")
    assert found.digest == here.digest and found.path.is_relative_to(tmp_path / "store")
    assert not (found.path / "pytorch_model.bin").exists()
    assert any("fetching s3://data/models/tiny/model.safetensors" in text for text in told)
    assert prepare_model("s3://data/models/tiny", tmp_path / "store", who).path == found.path


def test_a_bucket_without_a_model_is_refused_before_anything_is_fetched(s3, tmp_path):
    s3.put("data/models/tiny/pytorch_model.bin", b"pickled")
    s3.put("data/models/tiny/config.json", b"{}")
    who = Credentials({"accessKeyId": "a", "secretAccessKey": "b"}, s3.url, "bucket")
    with pytest.raises(UnusableModel, match="this checkpoint is pickled"):
        prepare_model("s3://data/models/tiny", tmp_path / "store", who)
    with pytest.raises(UnusableModel, match="takes none of the"):
        prepare_model("s3://data/models/none", tmp_path / "store", who)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.fixture
def modelscope(model_folder):
    """ModelScope's API for one model."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            found: bytes | None = None
            if url.path == "/api/v1/models/org/tiny/repo/files" and query["Revision"] == ["v2"]:
                files = [
                    {"Path": path.name, "Type": "blob", "Size": path.stat().st_size, "Revision": "c1"}
                    for path in model_folder.iterdir()
                ]
                found = json.dumps({"Code": 200, "Data": {"Files": files}}).encode()
            elif url.path == "/api/v1/models/org/tiny/repo":
                found = (model_folder / query["FilePath"][0]).read_bytes()
            self.send_response(200 if found is not None else 404)
            self.send_header("Content-Length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Credentials(endpoint=f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def test_a_model_of_modelscope_is_that_of_the_folder(modelscope, model_folder, tmp_path):
    found = prepare_model("modelscope://org/tiny@v2", tmp_path / "store", modelscope)
    assert found.digest == prepare_model(str(model_folder), tmp_path / "other").digest
    with pytest.raises(UnusableModel, match="no such file"):
        prepare_model("modelscope://org/tiny@v9", tmp_path / "store", modelscope)
