"""A server in a process of its own: TLS, restarts, kills, what it says when it cannot start."""

import http.client
import json
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time

import pytest

OBJECTS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def call(server):
    def call(method, path, body=None, headers=None, token=True):
        context = ssl.create_default_context(cafile=str(server.home / "tls" / "ca.crt"))
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=60)
        sent = {"authorization": f"Bearer {server.token}"} if token else {}
        sent |= {"content-type": "application/json"} | (headers or {})
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    return call


def test_it_answers_over_tls_that_its_own_authority_vouches_for(server, call):
    assert call("GET", "/readyz", token=False) == (200, b"ok")
    assert call("GET", "/version", token=False)[0] == 401
    assert json.loads(call("GET", "/version")[1])["minor"] == "32"
    with pytest.raises(ssl.SSLCertVerificationError):
        http.client.HTTPSConnection("127.0.0.1", server.port).request("GET", "/readyz")


def test_a_name_from_the_network_does_not_pass_for_a_caller_in_the_process(call):
    for header in ("datatunerx.user", "x-remote-user", "extensions"):
        assert call("GET", "/api", headers={header: "admin"}, token=False)[0] == 401


def test_a_body_too_big_is_refused(call):
    assert call("POST", OBJECTS, {"x": "y" * (4 << 20)})[0] == 413


def test_a_second_server_on_the_same_data_says_who_has_it(server):
    second = type(server)(server.home)
    with pytest.raises(RuntimeError, match=f"in use by another server .pid {server.process.pid}."):
        second.start()
    second.process.wait()


def test_sigterm_ends_watches_and_the_server_within_a_second(server, call):
    context = ssl.create_default_context(cafile=str(server.home / "tls" / "ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=60)
    connection.request("GET", f"{OBJECTS}?watch=1", headers={"authorization": f"Bearer {server.token}"})
    watch = connection.getresponse()
    got: list[bytes] = []

    def read() -> None:
        got.append(watch.read())
        connection.close()

    reader = threading.Thread(target=read)
    reader.start()
    started = time.monotonic()
    errors = server.stop()

    assert time.monotonic() - started < 8  # 0.2 s; those that wait for a connection to end wait 10
    reader.join(60)
    assert got == [b""], "an orderly end, not a cut connection"
    assert errors == ""
    watch.close()


def test_versions_go_on_and_a_watch_resumes_over_a_restart(server, call):
    made = json.loads(call("POST", OBJECTS, {"metadata": {"name": "a"}})[1])
    version = int(made["metadata"]["resourceVersion"])
    call("PATCH", f"{OBJECTS}/a", {"data": {"k": "1"}}, {"content-type": "application/merge-patch+json"})
    server.stop()
    server.start()
    call("PATCH", f"{OBJECTS}/a", {"data": {"k": "2"}}, {"content-type": "application/merge-patch+json"})
    lines = call("GET", f"{OBJECTS}?watch=1&resourceVersion={version}&timeoutSeconds=1")[1].splitlines()
    events = [json.loads(line) for line in lines]

    assert [event["object"]["data"]["k"] for event in events] == ["1", "2"]
    assert int(events[0]["object"]["metadata"]["resourceVersion"]) > version


def test_a_port_in_use_is_named_with_the_way_out(tmp_path):
    from datatunerx.server.listen import PortInUse, bind

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1 is in use.*--port"):
            bind("127.0.0.1", port)


def test_the_kubeconfig_is_the_owners_only_and_says_where(server):
    path = server.home / "kubeconfig"
    config = json.loads(path.read_text())

    assert path.stat().st_mode & 0o777 == 0o600
    assert config["clusters"][0]["cluster"]["server"] == server.url
    assert config["users"][0]["user"]["token"] == server.token


def test_serving_needs_neither_torch_nor_tables():
    """What would make every start slow is not there; how long a start takes, the benchmark says."""
    code = textwrap.dedent("""
        import sys
        import datatunerx.server.app, datatunerx.server.listen, datatunerx.server.state
        print(*{"torch", "transformers", "numpy", "pyarrow"} & set(sys.modules))
    """)

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
