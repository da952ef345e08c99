"""Discovery, OpenAPI, content negotiation, and the protobuf that kubectl insists on."""

import asyncio

import pytest

from datatunerx.server import negotiate, protobuf
from datatunerx.server.table import age, duration, jsonpath

ALL_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@pytest.mark.parametrize("slash", ["", "/"])
async def test_legacy_discovery_names_every_resource(api, slash):
    groups = (await api.get(f"/apis{slash}")).ok()
    resources = (await api.get(f"/apis/example.com/v1{slash}")).ok()["resources"]
    widgets, status, scale = resources

    assert "example.com" in {group["name"] for group in groups["groups"]}
    assert (await api.get(f"/api{slash}")).ok()["versions"] == ["v1"]
    assert (await api.get(f"/apis/example.com{slash}")).ok()["preferredVersion"]["version"] == "v1"
    assert (widgets["name"], widgets["kind"], widgets["verbs"]) == ("widgets", "Widget", ALL_VERBS)
    assert (widgets["singularName"], widgets["shortNames"]) == ("widget", ["w"])
    assert (status["name"], scale["name"], scale["kind"]) == ("widgets/status", "widgets/scale", "Scale")
    core = {row["name"]: row for row in (await api.get(f"/api/v1{slash}")).ok()["resources"]}
    assert core["pods"]["verbs"] == ["get", "list", "watch"] and "pods/log" in core


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
@pytest.mark.parametrize("order", ["g={g};v={v};as={a}", "as={a};v={v};g={g}"])
async def test_aggregated_discovery_is_one_document(api, version, order):
    params = order.format(g="apidiscovery.k8s.io", v=version, a="APIGroupDiscoveryList")
    got = await api.get("/apis", accept=f"application/json;{params},application/json;q=0.9")

    assert f"v={version}" in got.headers["content-type"]
    assert got.json["kind"] == "APIGroupDiscoveryList"
    [group] = [item for item in got.json["items"] if item["metadata"]["name"] == "example.com"]
    [widgets] = group["versions"][0]["resources"]
    assert widgets["responseKind"]["kind"] == "Widget"
    assert [sub["subresource"] for sub in widgets["subresources"]] == ["status", "scale"]


async def test_openapi_has_what_kubectl_looks_for(api):
    index = (await api.get("/openapi/v3")).ok()["paths"]
    document = (await api.get(index["apis/example.com/v1"]["serverRelativeURL"])).ok()
    gvk = {"group": "example.com", "kind": "Widget", "version": "v1"}
    patch = document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"]

    assert patch["x-kubernetes-group-version-kind"] == gvk
    assert {"dryRun", "fieldValidation", "force"} <= {each["name"] for each in patch["parameters"]}
    schema = document["components"]["schemas"]["com.example.v1.Widget"]
    assert schema["x-kubernetes-group-version-kind"] == [gvk]
    assert schema["properties"]["spec"]["required"] == ["size"]
    assert set(index) >= {"api/v1", "apis/example.com/v1", "apis/coordination.k8s.io/v1"}
    empty = await api.get("/openapi/v2", accept="application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
    assert "@" not in empty.headers["content-type"]  # Go cannot parse it, and kubectl 1.27 gives up
    assert (empty.status, empty.body) == (200, b"")


async def test_the_hash_of_a_document_changes_with_its_kinds(api):
    before = (await api.get("/openapi/v3")).ok()["paths"]
    crd = {
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"kind": "Gadget", "plural": "gadgets"},
            "versions": [{"name": "v1", "served": True, "storage": True}],
        },
    }
    (await api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)).ok()
    after = (await api.get("/openapi/v3")).ok()["paths"]

    changed = {place for place in after if before.get(place) != after[place]}
    assert changed == {"apis/example.com/v1"}


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "object"),
        ("*/*", "object"),
        ("application/json", "object"),
        ("application/vnd.kubernetes.protobuf,application/json", "object"),
        ("application/cbor", "object"),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "table"),
        ("application/json;g=meta.k8s.io;v=v1;as=Table", "table"),
        ("application/json, application/json;as=Table;g=meta.k8s.io;v=v1", "object"),
        ("application/json;q=0.1,application/json;as=Table;g=meta.k8s.io;v=v1;q=0.9", "table"),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", "object"),
        ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "partial"),
    ],
)
def test_the_accept_header_is_parsed_not_matched(accept, form):
    assert negotiate.form(accept) == form


def field(number: int, data: bytes) -> bytes:
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def message(kind: str, raw: bytes, version: str = "v1") -> bytes:
    names = field(1, version.encode()) + field(2, kind.encode())
    return b"k8s\x00" + field(1, names) + field(2, raw) + field(3, b"") + field(4, b"")


async def test_protobuf_bodies_of_kubectl_are_read(api):
    meta = field(1, b"conf") + field(3, b"") + field(11, field(1, b"l") + field(2, b"v"))
    body = message("ConfigMap", field(1, meta) + field(2, field(1, b"k") + field(2, b"value")))
    path = "/api/v1/namespaces/default/configmaps"
    got = await api.call("POST", path, body, protobuf.MEDIA_TYPE)

    assert got.ok()["data"] == {"k": "value"} and got.json["metadata"]["labels"] == {"l": "v"}
    secret = message("Secret", field(1, field(1, b"s")) + field(2, field(1, b"k") + field(2, b"\x00\xff")))
    got = await api.call("POST", path.replace("configmaps", "secrets"), secret, protobuf.MEDIA_TYPE)
    assert got.ok()["data"] == {"k": "AP8="}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"nothing", 400),
        (b"k8s\x00\x0a\xff", 400),
        (b"k8s\x00" + b"\xff" * 20, 400),
        (message("Pod", b""), 415),
    ],
)
async def test_broken_protobuf_is_refused(api, body, status):
    got = await api.call("POST", "/api/v1/namespaces/default/configmaps", body, protobuf.MEDIA_TYPE)

    assert got.status == status


async def test_protobuf_for_our_kinds_is_unsupported_so_that_clients_fall_back(api, widgets):
    assert (await api.call("POST", widgets, message("Widget", b""), protobuf.MEDIA_TYPE)).status == 415


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b[0]", [1]),
        (".a.b[-1]", [2]),
        (".a['b'][1]", [2]),
        ('.c[?(@.type=="Ready")].status', ["True"]),
        (".c[*].type", ["Other", "Ready"]),
        (".none.x", []),
        (".a.b[7]", []),
    ],
)
def test_printer_paths_find_their_values(path, found):
    obj = {"a": {"b": [1, 2]}, "c": [{"type": "Other"}, {"type": "Ready", "status": "True"}]}

    assert jsonpath(path)(obj) == found


def test_ages_read_like_kubectls():
    told = [
        duration(s) for s in (0, 119, 120, 200, 600, 10_799, 10_800, 12_000, 86_400 * 2 + 7200, 86_400 * 30)
    ]

    assert told == ["0s", "119s", "2m", "3m20s", "10m", "179m", "3h", "3h20m", "2d2h", "30d"]
    assert age("not a time", 0) == "<invalid>"


async def test_lifespan_starts_and_stops_the_app(state, app):
    from datatunerx.server.app import create_app

    fresh = create_app(state.store, app._crds, tokens=state.tokens)
    inbox: asyncio.Queue[dict] = asyncio.Queue()
    sent: list[str] = []

    async def send(message: dict) -> None:
        sent.append(message["type"])

    running = asyncio.ensure_future(fresh({"type": "lifespan"}, inbox.get, send))
    inbox.put_nowait({"type": "lifespan.startup"})
    inbox.put_nowait({"type": "lifespan.shutdown"})
    await running

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
