"""Five planted secrets, one whole journey, and not a trace of them where it is nobody's business."""

import asyncio
import base64
import json
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def forms(value: str) -> list[bytes]:
    """A value as it may be hidden: plain, in hex, and in base64 wherever in it the value begins."""
    found = [value.encode(), value.encode().hex().encode()]
    for shift in range(3):
        coded = base64.b64encode(b"x" * shift + value.encode()).decode()
        found.append(coded[4 if shift else 0 : -4].encode())
    return found


class Planted:
    """The five, and where they were seen."""

    def __init__(self) -> None:
        self.values = {name: secrets.token_hex(12) for name in ("applied", "used", "changed", "late")}
        self.tokens: list[str] = []
        self.said: list[str] = []
        self.lines: set[str] = set()

    def found_in(self, data: bytes) -> list[str]:
        values = [*self.values.items(), *((token[:8], token) for token in self.tokens)]
        return [name for name, value in values if any(form in data for form in forms(value))]


@pytest.fixture
def planted():
    """With an eye on the command line of every process for as long as the test lasts."""
    planted, done = Planted(), threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    planted.lines.add(path.read_bytes().decode(errors="replace"))
                except OSError:
                    continue

    eye = threading.Thread(target=look)
    eye.start()
    yield planted
    done.set()
    eye.join()


def secret(name: str, **values: str) -> dict:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


@contextmanager
def serving(token: str, rows: list) -> Iterator[str]:
    """A file for those who show the token."""
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["authorization"] == f"Bearer {token}"
            self.send_response(200 if known else 403)
            self.send_header("content-length", str(len(data) if known else 0))
            self.end_headers()
            if known and self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/colours.jsonl"
    server.shutdown()
    thread.join()
    server.server_close()


def plant(site, planted) -> None:
    """Two tokens and four values: one in client-side apply's annotation too, two one after the other."""
    token = site.dtx("token", "create", "--user", "ann", "--role", "editor").stdout.strip()
    planted.tokens += [token, (site.home / "token").read_text().strip()]
    values = planted.values
    last = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"k": values["applied"]})}
    applied = secret("applied", k=values["applied"])
    applied["metadata"]["annotations"] = last
    bad = secret("bad", k=values["changed"]) | {"data": {"k": "?"}}
    every = [
        applied,
        secret("used", token=values["used"]),
        secret("s", k=values["changed"]),
    ]
    for some in ([*every, secret("s", k=values["late"])], [bad]):
        done = site.dtx("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, some)))
        planted.said.append(done.stdout + done.stderr)


async def look_at_everything(site, planted) -> None:
    """Every list, as objects and as a table, and every log, as the administrator and as the editor."""
    here = load(site.home / "kubeconfig")
    for token in planted.tokens:
        async with Https(replace(here, token=token)) as transport:

            async def get(path: str, accept: str = "application/json") -> bytes:
                answer = await transport.request("GET", path, headers={"accept": accept})
                planted.said.append(str(dict(answer.headers)) + answer.body.decode())
                return answer.body

            roots = ["/api/v1"]
            for group in json.loads(await get("/apis"))["groups"]:
                roots.append(f"/apis/{group['preferredVersion']['groupVersion']}")
            for root in roots:
                for row in json.loads(await get(root))["resources"]:
                    if "list" in row["verbs"]:
                        place = "/namespaces/default" if row["namespaced"] else ""
                        where = f"{root}{place}/{row['name']}"
                        for accept in ("application/json", TABLE):
                            await get(f"{where}?includeObject=Object", accept)
                        if row["name"] in ("secrets", "events", "runs"):
                            await get(f"{where}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true")
            for pod in json.loads(await get("/api/v1/namespaces/default/pods"))["items"]:
                await get(f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}/log")


def journey(site, make, planted, model: Path, uri: str) -> None:
    """From secrets and data to a verdict, with a crash on the way, looked at from every side."""
    plant(site, planted)
    right, wrong = ({"secretRef": {"name": name}} for name in ("used", "s"))
    refused = make.dataset(uri, "refused", credentials=wrong)
    site.apply(make.llm(model.as_uri()), make.dataset(uri, credentials=right), refused, make.group())
    site.apply(make.experiment("e", ["quick"]))
    site.until(lambda: bool(site.workers()), 60, "it begins")
    site.kill()
    site.start()
    site.until(lambda: site.phase("fe", "e") in ("Succeeded", "Failed"), 300, "it ends")
    assert site.phase("fe", "e") == "Succeeded"
    assert "403" in json.dumps(site.status("ds", "refused"))
    asyncio.run(look_at_everything(site, planted))
    for words in (("describe", "secret", "applied"), ("watch", "e"), ("delete", "secret/s")):
        done = site.dtx(*words)
        planted.said.append(done.stdout + done.stderr)


def test_no_secret_leaves_its_place(site, make, planted, tiny_model, colour_rows):
    with serving(planted.values["used"], colour_rows) as uri:
        journey(site, make, planted, tiny_model, uri)
    assert len(planted.said) > 100 and len(planted.lines) > 5
    own = {site.home / "token", site.home / "kubeconfig"}  # the administrator's, 0600
    files = [path for path in site.home.parent.rglob("*") if path.is_file() and path not in own]
    seen = {str(path): found for path in files if (found := planted.found_in(path.read_bytes()))}
    assert seen == {}, "on disk"
    assert len(files) > 30 and any("objects.db" in path.name for path in files)
    assert [text for text in planted.said if planted.found_in(text.encode())] == [], "said"
    assert [line for line in planted.lines if planted.found_in(line.encode())] == [], "on a command line"
    assert any("datatunerx.worker" in line for line in planted.lines)
    for path in own:
        assert planted.found_in(path.read_bytes()) and path.stat().st_mode & 0o777 == 0o600


def test_the_search_finds_what_is_there(planted):
    """Else the test above would pass for the wrong reason."""
    for name, value in planted.values.items():
        for shift in range(3):
            hidden = base64.b64encode(b"{" * (7 + shift) + value.encode() + b"}") + b"\n"
            assert planted.found_in(hidden) == [name]
        assert planted.found_in(json.dumps({"a": value}).encode()) == [name]
    with subprocess.Popen(
        [sys.executable, "-c", "input()", planted.values["late"]], stdin=subprocess.PIPE
    ) as child:
        assert psutil.pid_exists(child.pid)
        for _ in range(200):
            if any(planted.found_in(line.encode()) for line in planted.lines):
                break
            threading.Event().wait(0.02)
        child.communicate(b"\n")
    assert any(planted.found_in(line.encode()) for line in planted.lines)
