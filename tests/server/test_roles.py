"""Who may do what: every route the server has, every verb, every kind of caller."""

import pytest

from datatunerx.resources.crds import crd_manifests
from datatunerx.server import uploads
from datatunerx.server.app import create_app

TOKENS = "/apis/auth.datatunerx.io/v1/tokens"
RUNS = "/apis/datatunerx.io/v1beta1/namespaces/team/runs"
CONFIGS = "/api/v1/namespaces/team/configmaps"
NOTHING: frozenset[str] = frozenset()
GET = frozenset({"get"})
READ = frozenset({"get", "list", "watch"})
LIST = frozenset({"list", "watch"})
WRITE = frozenset({"create", "delete", "deletecollection", "patch", "update"})
ALL = READ | WRITE
SET = frozenset({"get", "patch", "update"})
OPEN = (READ, ALL, ALL)
STATUS = (GET, GET, SET)

# What a viewer, an editor and an admin of a namespace may do in it. A resource without a row fails the test.
ALLOWED = {
    "configmaps": OPEN,
    "events": OPEN,
    "events.events.k8s.io": OPEN,
    "serviceaccounts": OPEN,
    "leases.coordination.k8s.io": OPEN,
    "secrets": (LIST, ALL, ALL),
    "pods": (READ, READ, READ),
    "pods/log": (GET, GET, GET),
    "namespaces": (GET, GET, GET),
    "namespaces/status": (GET, GET, GET),
    "customresourcedefinitions.apiextensions.k8s.io": (READ, READ, READ),
    "customresourcedefinitions.apiextensions.k8s.io/status": (NOTHING, NOTHING, NOTHING),
    "tokens.auth.datatunerx.io": (NOTHING, NOTHING, NOTHING),
    "selfsubjectaccessreviews.authorization.k8s.io": ({"create"}, {"create"}, {"create"}),
    "selfsubjectrulesreviews.authorization.k8s.io": ({"create"}, {"create"}, {"create"}),
    "selfsubjectreviews.authentication.k8s.io": ({"create"}, {"create"}, {"create"}),
    **{
        f"{plural}.datatunerx.io": OPEN
        for plural in (
            *("llms", "datasets", "hyperparameters", "dataplugins", "scoringplugins", "scorings"),
            *("finetunes", "finetunejobs", "finetuneexperiments", "inferenceservices"),
        )
    },
    **{
        f"{plural}.datatunerx.io/status": STATUS
        for plural in (
            *("llms", "datasets", "hyperparameters", "dataplugins", "scoringplugins", "scorings"),
            *("finetunes", "finetunejobs", "finetuneexperiments", "inferenceservices"),
            *("llmcheckpoints", "runs"),
        )
    },
    "inferenceservices.datatunerx.io/scale": (GET, SET, SET),
    "inferenceservices.datatunerx.io/proxy": (NOTHING, {"get", "create"}, {"get", "create"}),
    "inferenceservices.datatunerx.io/compare": (NOTHING, {"create"}, {"create"}),
    "llmcheckpoints.datatunerx.io": (READ, ALL - {"create"}, ALL),
    "runs.datatunerx.io": (READ, READ, ALL),
}
EVERYONES = {name for name, (viewer, _, _) in ALLOWED.items() if name.startswith(("selfsubject", "customr"))}
PLAIN = {
    *("/", "/api", "/api/v1", "/apis", "/apis/datatunerx.io", "/apis/datatunerx.io/v1beta1"),
    *("/openapi/v2", "/openapi/v3", "/openapi/v3/apis/datatunerx.io/v1beta1", "/version"),
}
PROBES = {"/readyz", "/livez", "/healthz"}
METHODS = {"get": "GET", "list": "GET", "watch": "GET", "create": "POST", "update": "PUT", "patch": "PATCH"}
APPLY = "application/apply-patch+yaml"


@pytest.fixture
async def app(state):
    app = create_app(state.store, crd_manifests(), tokens=state.tokens)
    await app.start()
    yield app
    await app.stop()
    await state.store.close()


async def routes(api):
    """(resource or resource/subresource, plural path, namespaced, verbs) of all that discovery names."""
    found = [("", "/api/v1", (await api.get("/api/v1")).ok())]
    for group in (await api.get("/apis")).ok()["groups"]:
        for version in group["versions"]:
            path = f"/apis/{version['groupVersion']}"
            found.append((group["name"], path, (await api.get(path)).ok()))
    for group, path, document in found:
        for row in document["resources"]:
            plural, _, subresource = row["name"].partition("/")
            resource = f"{plural}.{group}" if group else plural
            full = f"{resource}/{subresource}" if subresource else resource
            yield full, path, plural, subresource, row["namespaced"], row["verbs"]


def request(path, plural, subresource, namespaced, verb, namespace):
    """(method, path) that stands for a verb; nothing is changed by it."""
    place = f"{path}/namespaces/{namespace}/{plural}" if namespaced else f"{path}/{plural}"
    query = "?dryRun=All"
    if verb == "watch":
        query = "?watch=1&resourceVersion=999999999"
    elif verb not in ("create", "list", "deletecollection"):
        # Reading a namespace is a matter of that namespace.
        place += f"/{namespace if plural == 'namespaces' else 'nothing'}"
    place += f"/{subresource}" if subresource else ""
    return METHODS.get(verb, "DELETE"), place + query


async def test_every_route_has_a_row_here(api):
    assert {route[0] async for route in routes(api)} == set(ALLOWED)
    assert set((await api.get("/")).ok()["paths"]) <= PLAIN | PROBES


async def test_every_route_and_verb_is_shut_to_who_has_no_valid_token(api, stranger, make_token):
    revoked, name = await make_token("admin", "*")
    (await api.delete(f"{TOKENS}/{name}")).ok()
    expired, _ = await make_token("admin", "*", seconds=-1)
    paths = {(method, path) for path in PLAIN for method in ("GET", "POST", "DELETE", "OPTIONS")}
    async for _, path, plural, sub, namespaced, verbs in routes(api):
        paths |= {request(path, plural, sub, namespaced, verb, "team") for verb in verbs}
    for method, path in paths:
        for token in ("", "wrong", revoked, expired):
            sent = {"authorization": f"Bearer {token}"} if token else {}
            got = await stranger.call(method, path, {}, **sent)
            assert (got.status, got.json["reason"]) == (401, "Unauthorized"), (method, path, token)


async def test_every_route_and_verb_follows_the_table(api, caller):
    found = [route async for route in routes(api)]
    checked = 0
    for place, role in enumerate(("viewer", "editor", "admin")):
        call = await caller(role)
        for namespace in ("team", "other"):
            for resource, path, plural, sub, namespaced, verbs in found:
                inside = namespace == "team" or resource in EVERYONES
                allowed = ALLOWED[resource][place] if inside else NOTHING
                for verb in verbs:
                    method, where = request(path, plural, sub, namespaced, verb, namespace)
                    got = await call(method, where, {})
                    told = (role, namespace, verb, resource, got.body)
                    assert (got.status != 403) == (verb in allowed), told
                    assert got.status < 500 and got.status != 401, told
                    checked += 1
    assert checked > 1000


async def test_a_role_everywhere_holds_in_every_namespace_and_over_all_of_them(api, caller):
    role, place = "editor", 1
    call = await caller(role, "*")
    async for resource, path, plural, sub, namespaced, verbs in routes(api):
        allowed = ALLOWED[resource][place] | ({"list", "watch"} if resource == "namespaces" else NOTHING)
        for verb in verbs:
            method, where = request(path, plural, sub, namespaced, verb, "other")
            assert ((await call(method, where, {})).status != 403) == (verb in allowed), (verb, resource)
        if namespaced and not sub:
            assert (await call("GET", f"{path}/{plural}")).status == 200, resource
    narrow = await caller(role)
    assert (await narrow("GET", "/api/v1/configmaps")).status == 403


async def test_an_admin_of_everything_is_refused_nothing(api, caller):
    call = await caller("admin", "*")
    async for resource, path, plural, sub, namespaced, verbs in routes(api):
        for verb in verbs:
            method, where = request(path, plural, sub, namespaced, verb, "team")
            assert (await call(method, where, {})).status not in (401, 403), (verb, resource)


@pytest.mark.parametrize("role", ["viewer", "editor", "admin"])
async def test_can_i_says_what_a_request_would_be_told(api, caller, role):
    call = await caller(role)
    place = ("viewer", "editor", "admin").index(role)
    review = {"apiVersion": "authorization.k8s.io/v1"}
    reviews = "/apis/authorization.k8s.io/v1/selfsubject"
    listed = (
        await call(
            "POST", f"{reviews}rulesreviews",
            review | {"kind": "SelfSubjectRulesReview", "spec": {"namespace": "team"}},
        )
    ).ok()["status"]["resourceRules"]  # fmt: skip
    async for resource, _, plural, sub, _, verbs in routes(api):
        group = resource.partition("/")[0].partition(".")[2]
        for verb in verbs:
            asked = {"group": group, "resource": plural, "verb": verb, "namespace": "team"}
            asked |= {"subresource": sub} if sub else {}
            asked |= {"name": "team"} if plural == "namespaces" else {}
            spec = {"resourceAttributes": asked}
            body = review | {"kind": "SelfSubjectAccessReview", "spec": spec}
            said = (await call("POST", f"{reviews}accessreviews", body)).ok()["status"]["allowed"]
            assert said == (verb in ALLOWED[resource][place]), (verb, resource)
            full = f"{plural}/{sub}" if sub else plural
            found = any(
                verb in rule["verbs"] and group in rule["apiGroups"] and full in rule["resources"]
                for rule in listed
            )
            assert found == said, (verb, resource)


async def test_paths_that_are_no_resources_are_for_reading_only(api, caller):
    call = await caller("viewer")
    for path in PLAIN:
        assert (await call("GET", path)).status == 200, path
        assert (await call("POST", path, {})).status in (403, 405), path
    got = await call("GET", "/metrics")
    assert got.status == 403
    assert got.json["message"] == 'forbidden: User "ann" cannot get path "/metrics"'
    assert (await api.get("/metrics")).status == 404


async def test_a_refusal_speaks_as_kubernetes_does(caller):
    call = await caller("viewer")
    got = await call("POST", "/apis/datatunerx.io/v1beta1/namespaces/team/finetunes", {})
    assert (got.status, got.json["reason"]) == (403, "Forbidden")
    assert got.json["message"] == (
        'finetunes.datatunerx.io is forbidden: User "ann" cannot create resource "finetunes" '
        'in API group "datatunerx.io" in the namespace "team"'
    )
    assert got.json["details"]["kind"] == "finetunes" and got.json["details"]["group"] == "datatunerx.io"
    got = await call("PATCH", f"{RUNS}/r/status", {})
    assert got.json["message"] == (
        'runs.datatunerx.io "r" is forbidden: User "ann" cannot patch resource "runs/status" '
        'in API group "datatunerx.io" in the namespace "team"'
    )
    got = await call("GET", "/api/v1/namespaces")
    assert got.json["message"].endswith(
        'cannot list resource "namespaces" in API group "" at the cluster scope'
    )


async def test_an_apply_that_would_create_needs_the_right_to_create(caller):
    call = await caller("editor")
    path = "/apis/datatunerx.io/v1beta1/namespaces/team/llmcheckpoints/c?fieldManager=me"
    got = await call("PATCH", path, {}, APPLY)

    assert got.status == 403 and 'cannot create resource "llmcheckpoints"' in got.json["message"]


async def test_what_is_mounted_beside_the_resources_follows_the_roles_too(app, caller, stranger, tmp_path):
    app._mounts[uploads.PREFIX] = uploads.Uploads(tmp_path / "uploads")
    place = f"{uploads.PREFIX}/v1/namespaces"
    body = {"name": "a.jsonl", "size": 1, "sha256": "0" * 64}
    wanted = {("viewer", "team"): False, ("editor", "team"): True, ("admin", "team"): True}
    wanted |= {("editor", "other"): False, ("admin", "other"): False}
    for (role, namespace), allowed in wanted.items():
        call = await caller(role)
        for method, path in (
            ("POST", f"{place}/{namespace}"),
            ("GET", f"{place}/{namespace}/{'0' * 32}"),
            ("PUT", f"{place}/{namespace}/{'0' * 32}?offset=0"),
            ("POST", f"{place}/{namespace}/{'0' * 32}/complete"),
            ("DELETE", f"{place}/{namespace}/{'0' * 32}"),
        ):
            got = await call(method, path, body)
            assert (got.status != 403) == allowed and got.status < 500, (role, method, path, got.body)
            assert (await stranger.call(method, path, body)).status == 401
