"""A web server that behaves as told."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Site:
    """Files by path; what is asked is remembered."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.changed: dict[str, str] = {}
        """Last-Modified, for files without an ETag. This server heeds no If-Range of that kind."""
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
        heeded = etag in ("", asked.headers.get("If-Range", etag))
        if asked.headers.get("Range") and heeded and code == 200:
            start, code = int(asked.headers["Range"].removeprefix("bytes=").removesuffix("-")), 206
        asked.send_response(code)
        asked.send_header("Content-Length", str(len(data) - start))
        if etag:
            asked.send_header("ETag", etag)
        if path in self.changed:
            asked.send_header("Last-Modified", self.changed[path])
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
