"""Create, read, replace, patch: what a client may rely on for any object."""

import asyncio
import json
import re

import pytest


async def test_a_created_object_is_named_stamped_defaulted_and_numbered(api, widgets, widget):
    got = (await api.post(widgets, widget("a"))).ok()

    meta = got["metadata"]
    assert re.fullmatch(r"[0-9a-f-]{36}", meta["uid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", meta["creationTimestamp"])
    assert meta["generation"] == 1 and int(meta["resourceVersion"]) > 0
    assert meta["namespace"] == "default"
    assert got["spec"] == {"size": 3, "color": "red", "replicas": 1}
    assert (await api.get(f"{widgets}/a")).ok() == got


async def test_generate_name_makes_a_new_name_each_time(api, widgets, widget):
    body = widget("x")
    body["metadata"] = {"generateName": "gen-"}
    names = {(await api.post(widgets, body)).ok()["metadata"]["name"] for _ in range(5)}

    assert len(names) == 5 and all(re.fullmatch(r"gen-[a-z0-9]{5}", name) for name in names)


async def test_creating_twice_is_already_exists(api, widgets, widget):
    await api.post(widgets, widget("a"))
    got = await api.post(widgets, widget("a"))

    assert got.status == 409
    assert got.json["reason"] == "AlreadyExists"
    assert got.json["message"] == 'widgets.example.com "a" already exists'
    assert got.json["details"] == {"name": "a", "group": "example.com", "kind": "widgets"}


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"kind": "Wrong"}, 400, "kind in the body"),
        ({"apiVersion": "v9"}, 400, "apiVersion in the body"),
        ({"metadata": {"name": "Bad_Name"}}, 422, 'metadata.name: Invalid value: "Bad_Name"'),
        ({"metadata": {}}, 422, "metadata.name: Required value"),
        ({"metadata": {"name": "a", "namespace": "other"}}, 400, "does not match the namespace"),
        ({"metadata": {"name": "a", "resourceVersion": "5"}}, 400, "resourceVersion should not be set"),
        ({"metadata": {"name": "a", "labels": {"a b": "c"}}}, 422, "metadata.labels: Invalid value"),
        ({"metadata": {"name": "a", "labels": {"a": 1}}}, 422, "metadata.labels.a"),
        (
            {"metadata": {"name": "a", "annotations": {"a": "x" * 270_000}}},
            422,
            "Too long: may not be more than",
        ),
        ({"spec": {}}, 422, "spec.size: Required value"),
        ({"spec": {"size": "big"}}, 422, "spec.size in body must be of type integer"),
        ({"spec": {"size": 10**28}}, 422, "spec.size in body should be less than or equal to"),
        ({"spec": {"size": 0}}, 422, "should be greater than or equal to 1"),
        ({"spec": {"size": 65}}, 422, "size must be between 1 and 64"),
        ({"spec": {"size": 1, "color": "pink"}}, 422, 'Unsupported value: "pink": supported values: "red"'),
        ({"spec": {"size": 1, "ratio": 0}}, 422, "ratio must be over one half"),
        ({"spec": {"size": 1, "tags": ["x", "x"]}}, 422, 'spec.tags[1]: Duplicate value: "x"'),
        (
            {"spec": {"size": 1, "ports": [{"name": "x"}, {"name": "x"}]}},
            422,
            "spec.ports[1]: Duplicate value",
        ),
        ({"spec": {"size": 1, "ports": [{"number": 1}]}}, 422, "spec.ports[0].name: Required value"),
        ({"metadata": "x"}, 400, "metadata: must be an object"),
        ({"spec": []}, 422, "spec in body must be of type object"),
    ],
)
async def test_what_does_not_fit_is_refused_by_field(api, widgets, widget, change, status, message):
    got = await api.post(widgets, {**widget("a"), **change})

    assert got.status == status, got.body
    assert message in got.json["message"]
    assert got.json["kind"] == "Status" and got.json["code"] == status
    assert (await api.get(f"{widgets}/a")).status == 404


async def test_a_number_written_as_an_integer_satisfies_a_rule_about_doubles(api, widgets, widget):
    (await api.post(widgets, widget("a", ratio=1))).ok()


async def test_unknown_fields_are_refused_warned_of_or_dropped_as_asked(api, widgets, widget):
    body = widget("a", wrong=1)
    strict = await api.post(f"{widgets}?fieldValidation=Strict", body)
    warned = await api.post(f"{widgets}?fieldValidation=Warn", body)

    assert strict.status == 400
    assert strict.json["message"] == 'strict decoding error: unknown field "spec.wrong"'
    assert warned.headers["warning"] == '299 - "unknown field \\"spec.wrong\\""'
    assert "wrong" not in warned.ok()["spec"]
    body["metadata"]["name"] = "b"
    assert "warning" not in (await api.post(f"{widgets}?fieldValidation=Ignore", body)).headers


@pytest.mark.parametrize("type_", ["application/json", "application/yaml"])
async def test_fields_that_stand_twice_are_refused_or_warned_of_by_path(api, widgets, widget, type_):
    body = widget("a", ports=[{"name": "p", "number": 1}])
    twice = json.dumps(body).replace('"number": 1', '"number": 1, "number": 2').encode()
    strict = await api.call("POST", f"{widgets}?fieldValidation=Strict", twice, type_)
    warned = await api.call("POST", f"{widgets}?fieldValidation=Warn", twice, type_)

    assert strict.status == 400
    assert strict.json["message"] == 'strict decoding error: duplicate field "spec.ports[0].number"'
    assert warned.headers["warning"] == '299 - "duplicate field \\"spec.ports[0].number\\""'
    assert warned.ok()["spec"]["ports"][0]["number"] == 2
    for patch in ("application/merge-patch+json", "application/apply-patch+yaml"):
        query = "?fieldManager=me&fieldValidation=Strict"
        got = await api.call("PATCH", f"{widgets}/a{query}", twice, patch)
        assert (got.status, "duplicate field" in got.json["message"]) == (400, True)
        assert (await api.call("PATCH", f"{widgets}/a{query}", body, patch)).status == 200


async def test_force_is_for_applying_only(api, widgets, widget):
    await api.post(widgets, widget("a"))
    got = await api.patch(f"{widgets}/a?force=true", {"spec": {"size": 2}})

    assert (got.status, "non-apply" in got.json["message"]) == (400, True)


async def test_warnings_are_headers_whatever_the_unknown_fields_are_called(api, widgets, widget):
    odd = widget("a") | {'\x07\n\u0085\ud83d\udc00"\\': 1, "plain": 2}
    answer = await api.post(widgets, odd)
    assert answer.status == 201
    assert answer.headers["warning"].isprintable() and answer.headers["warning"].isascii()

    many = widget("b") | {f"field{n:05}": 1 for n in range(5000)}
    answer = await api.post(widgets, many)
    assert answer.status == 201 and "more warnings" in answer.headers["warning"]


async def test_an_unknown_namespace_is_named(api, widgets, widget):
    got = await api.post(widgets.replace("default", "nosuch"), widget("a"))

    assert (got.status, got.json["message"]) == (404, 'namespaces "nosuch" not found')


async def test_dry_run_goes_all_the_way_and_stores_nothing(api, widgets, widget):
    assert (await api.post(f"{widgets}?dryRun=All", widget("a"))).ok()["spec"]["color"] == "red"
    assert (await api.post(f"{widgets}?dryRun=All", widget("b", size=99))).status == 422
    assert (await api.get(f"{widgets}/a")).status == 404
    await api.post(widgets, widget("a"))
    changed = (await api.patch(f"{widgets}/a?dryRun=All", {"spec": {"size": 9}})).ok()
    assert changed["spec"]["size"] == 9
    await api.delete(f"{widgets}/a?dryRun=All")
    assert (await api.get(f"{widgets}/a")).ok()["spec"]["size"] == 3


async def test_bodies_that_are_no_json_too_big_or_of_another_type_are_told_apart(api, widgets):
    assert (await api.call("POST", widgets, b"{")).status == 400
    assert (await api.call("POST", widgets, b"[" * 500 + b"]" * 500)).status == 400
    assert (await api.call("POST", widgets, b" " * (3 << 20) + b" ")).status == 413
    cbor = await api.call("POST", widgets, b"x", "application/cbor")
    assert cbor.status == 415 and cbor.json["reason"] == "UnsupportedMediaType"
    bomb = b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n"
    assert (await api.call("POST", widgets, bomb, "application/yaml")).status == 400


async def test_yaml_bodies_are_read(api, widgets):
    text = (
        b"apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: y}\nspec: {size: 2, owner: 2020-01-01}\n"
    )
    got = await api.call("POST", widgets, text, "application/yaml")

    assert got.ok()["spec"]["owner"] == "2020-01-01"


async def test_replace_needs_the_version_it_read(api, widgets, widget):
    first = (await api.post(widgets, widget("a"))).ok()
    without = await api.put(f"{widgets}/a", widget("a", size=5))
    second = (await api.put(f"{widgets}/a", {**first, "spec": {"size": 5}})).ok()
    stale = await api.put(f"{widgets}/a", {**first, "spec": {"size": 6}})

    assert without.status == 422 and "metadata.resourceVersion" in without.json["message"]
    assert second["metadata"]["generation"] == 2 and second["spec"]["size"] == 5
    assert (stale.status, stale.json["reason"]) == (409, "Conflict")
    assert "the object has been modified" in stale.json["message"]


async def test_a_patch_without_a_version_never_conflicts_with_itself(api, widgets, widget):
    await api.post(widgets, widget("a"))
    patches = [api.patch(f"{widgets}/a", {"metadata": {"labels": {f"l{i}": "x"}}}) for i in range(30)]
    answers = await asyncio.gather(*patches)

    assert {answer.status for answer in answers} == {200}
    assert len((await api.get(f"{widgets}/a")).ok()["metadata"]["labels"]) == 30


async def test_a_patch_with_an_old_version_or_another_uid_conflicts(api, widgets, widget):
    first = (await api.post(widgets, widget("a"))).ok()
    await api.patch(f"{widgets}/a", {"spec": {"size": 4}})

    for meta in ({"resourceVersion": first["metadata"]["resourceVersion"]}, {"uid": "other"}):
        got = await api.patch(f"{widgets}/a", {"metadata": meta, "spec": {"size": 5}})
        assert (got.status, got.json["reason"]) == (409, "Conflict")


async def test_a_write_that_changes_nothing_moves_nothing(api, widgets, widget):
    first = (await api.post(widgets, widget("a"))).ok()
    watch = await api.watch(f"{widgets}?watch=1&resourceVersion={first['metadata']['resourceVersion']}")

    assert (await api.patch(f"{widgets}/a", {"spec": {"size": 3}})).ok() == first
    assert (await api.put(f"{widgets}/a", first)).ok() == first
    (await api.patch(f"{widgets}/a", {"spec": {"size": 4}})).ok()
    assert (await watch.next())["object"]["spec"]["size"] == 4
    await watch.close()


async def test_status_and_spec_are_written_through_their_own_doors(api, widgets, widget):
    body = {**widget("a"), "status": {"phase": "Done"}}
    assert "status" not in (await api.post(widgets, body)).ok()

    status = {"status": {"phase": "Running"}, "spec": {"size": 60}, "metadata": {"labels": {"a": "b"}}}
    got = (await api.patch(f"{widgets}/a/status", status)).ok()
    assert got["status"] == {"phase": "Running"} and got["spec"]["size"] == 3
    assert "labels" not in got["metadata"] and got["metadata"]["generation"] == 1
    got = (await api.patch(f"{widgets}/a", {"spec": {"size": 4}, "status": {"phase": "No"}})).ok()
    assert got["status"] == {"phase": "Running"} and got["metadata"]["generation"] == 2
    assert (await api.get(f"{widgets}/a/status")).ok() == got


async def test_what_is_set_by_the_server_cannot_be_changed(api, widgets, widget):
    first = (await api.post(widgets, widget("a"))).ok()
    stamp = {"creationTimestamp": "2001-01-01T00:00:00Z", "generation": 99}
    got = (await api.patch(f"{widgets}/a", {"metadata": stamp, "spec": {"size": 4}})).ok()

    assert got["metadata"]["creationTimestamp"] == first["metadata"]["creationTimestamp"]
    assert got["metadata"]["generation"] == 2


async def test_transition_rules_run_on_updates_only(api, widgets, widget):
    await api.post(widgets, widget("a", owner="ann"))
    got = await api.patch(f"{widgets}/a", {"spec": {"owner": "bob"}})

    assert got.status == 422 and "owner is immutable" in got.json["message"]
    assert (await api.patch(f"{widgets}/a", {"spec": {"owner": None}})).status == 422
    assert (await api.patch(f"{widgets}/a", {"spec": {"size": 5}})).status == 200


async def test_json_patch_does_all_or_nothing(api, widgets, widget):
    await api.post(widgets, widget("a", args=["x", "y"]))
    good = [
        {"op": "test", "path": "/spec/size", "value": 3},
        {"op": "replace", "path": "/spec/size", "value": 7},
        {"op": "add", "path": "/spec/args/1", "value": "new"},
        {"op": "move", "from": "/spec/args/0", "path": "/spec/args/-"},
        {"op": "copy", "from": "/spec/size", "path": "/spec/replicas"},
    ]
    kind = "application/json-patch+json"
    got = (await api.patch(f"{widgets}/a", good, kind)).ok()
    assert got["spec"]["args"] == ["new", "y", "x"]
    assert got["spec"]["size"] == got["spec"]["replicas"] == 7
    bad = [
        {"op": "replace", "path": "/spec/size", "value": 8},
        {"op": "test", "path": "/spec/size", "value": 1},
    ]
    assert (await api.patch(f"{widgets}/a", bad, kind)).status == 422
    assert (await api.patch(f"{widgets}/a", [{"op": "remove", "path": "/spec/no"}], kind)).status == 422
    assert (await api.patch(f"{widgets}/a", [{"op": "dance", "path": "/spec"}], kind)).status == 400
    assert (await api.get(f"{widgets}/a")).ok() == got


async def test_a_patch_that_copies_itself_without_end_is_stopped(api, widgets, widget):
    await api.post(widgets, widget("a", args=["x" * 1000]))
    copies = [{"op": "copy", "from": "/spec", "path": f"/spec/c{i}"} for i in range(40)]

    assert (await api.patch(f"{widgets}/a", copies, "application/json-patch+json")).status == 413


async def test_strategic_patches_are_for_core_kinds_only(api, widgets, widget):
    await api.post(widgets, widget("a"))
    kind = "application/strategic-merge-patch+json"
    maps = "/api/v1/namespaces/default/configmaps"
    await api.post(maps, {"metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}})

    assert (await api.patch(f"{widgets}/a", {"spec": {"size": 4}}, kind)).status == 415
    assert (await api.patch(f"{maps}/c", {"data": {"a": None, "c": "3"}}, kind)).ok()["data"] == {
        "b": "2",
        "c": "3",
    }


async def test_scale_reads_and_writes_the_replicas(api, widgets, widget):
    await api.post(widgets, widget("a"))
    scaled = (await api.patch(f"{widgets}/a/scale", {"spec": {"replicas": 4}})).ok()

    assert scaled["kind"] == "Scale" and scaled["spec"] == {"replicas": 4}
    assert (await api.get(f"{widgets}/a")).ok()["spec"]["replicas"] == 4
    assert (await api.patch(f"{widgets}/a/scale", {"spec": {"replicas": "x"}})).status == 422


async def test_every_refusal_is_a_status_object(api, widgets):
    for method, path, status in [
        ("GET", f"{widgets}/zz", 404),
        ("GET", "/apis/none.example/v1", 404),
        ("GET", "/nothing/here", 404),
        ("POST", "/version", 405),
        ("PUT", widgets, 405),
        ("POST", "/apis/example.com/v1/widgets", 405),
        ("GET", f"{widgets}?limit=x", 400),
        ("GET", f"{widgets}/a/b/c", 404),
    ]:
        got = await api.call(method, path)
        assert (got.status, got.json["kind"], got.json["code"]) == (status, "Status", status), path
        assert got.json["message"]


async def test_reads_of_core_kinds_know_what_they_are(api):
    maps = "/api/v1/namespaces/default/configmaps"
    got = (await api.post(maps, {"metadata": {"name": "c"}, "data": {"k": "v"}})).ok()

    assert (got["apiVersion"], got["kind"]) == ("v1", "ConfigMap")
    listed = (await api.get(maps)).ok()
    assert listed["kind"] == "ConfigMapList" and listed["items"] == [got]
