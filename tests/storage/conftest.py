"""A web server that behaves as told, and an S3 store that checks signatures, both processes' worth of real HTTP."""

import os
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOTO = (os.environ.get("DTX_MOTO_PYTHON"), ROOT / ".venv/moto/bin/python")


class Site:
    """Files by path; what is asked is remembered."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.status: dict[str, int] = {}
        self.redirects: dict[str, str] = {}
        self.html: set[str] = set()
        self.cut_after: dict[str, int] = {}
        """Answers break off after so many bytes, until the file has been asked for often enough."""
        self.token = ""
        self.asked: list[tuple[str, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        path = asked.path
        self.asked.append((path, {name.lower(): value for name, value in asked.headers.items()}))
        code = self.status.get(path, 200 if path in self.files else 404)
        if self.token and asked.headers.get("Authorization") != f"Bearer {self.token}":
            code = 403
        if path in self.redirects:
            asked.send_response(302)
            asked.send_header("Location", self.redirects[path])
            asked.send_header("Content-Length", "0")
            return asked.end_headers()
        data = self.files.get(path, b"") if code == 200 else b""
        start = 0
        etag = self.etags.get(path, "")
        if asked.headers.get("Range") and asked.headers.get("If-Range", etag) == etag and code == 200:
            start, code = int(asked.headers["Range"].removeprefix("bytes=").removesuffix("-")), 206
        asked.send_response(code)
        asked.send_header("Content-Length", str(len(data) - start))
        if etag:
            asked.send_header("ETag", etag)
        if path in self.html:
            asked.send_header("Content-Type", "text/html")
        asked.end_headers()
        cut = self.cut_after.get(path)
        if cut is None:
            asked.wfile.write(data[start:])
        else:
            asked.wfile.write(data[start : start + cut])
            asked.close_connection = True


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """An S3-compatible store in a process of its own."""
    python = next((str(path) for path in MOTO if path and Path(path).exists()), None)
    if python is None:
        pytest.skip("the S3 store of the tests is not installed; make moto")
    process = subprocess.Popen(
        [python, "-c", SERVE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


SERVE = """
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
server._thread.join()
"""


class Store:
    """The S3 store as an administrator sees it."""

    def __init__(self, url: str) -> None:
        from pyarrow import fs

        self.url = url
        self._fs = fs.S3FileSystem(
            access_key="admin", secret_key="admin", endpoint_override=url.removeprefix("http://"),
            scheme="http", region="us-east-1", allow_bucket_creation=True,
        )  # fmt: skip
        self._fs.create_dir("data")

    def put(self, path: str, content: bytes) -> None:
        with self._fs.open_output_stream(path) as file:
            file.write(content)

    def member(self, name: str) -> dict[str, str]:
        """The keys of a new user, who is known and may do nothing."""
        made = {}
        for action in ("CreateUser", "CreateAccessKey"):
            signed = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0"
            body = f"Action={action}&UserName={name}&Version=2010-05-08".encode()
            asked = urllib.request.Request(self.url, body, {"Authorization": signed}, method="POST")
            made[action] = urllib.request.urlopen(asked).read().decode()
        found = {
            tag: made["CreateAccessKey"].split(f"<{tag}>")[1].split("<")[0]
            for tag in ("AccessKeyId", "SecretAccessKey")
        }
        return {"accessKeyId": found["AccessKeyId"], "secretAccessKey": found["SecretAccessKey"]}

    def guard(self, actions: int = 0) -> None:
        """From here on every request must be signed by somebody who is known."""
        self._post("reset-auth", str(actions))

    def reset(self) -> None:
        self.guard(10**9)
        self._post("reset")

    def _post(self, path: str, body: str = "") -> None:
        headers = {"Content-Type": "text/plain"}
        asked = urllib.request.Request(f"{self.url}/moto-api/{path}", body.encode(), headers, method="POST")
        urllib.request.urlopen(asked).read()


@pytest.fixture
def s3(s3_url: str) -> Iterator[Store]:
    store = Store(s3_url)
    yield store
    store.reset()
