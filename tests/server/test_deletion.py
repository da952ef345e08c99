"""Delete, finalizers, owners, namespaces, kinds, ageing events."""

import pytest

NAMESPACES = "/api/v1/namespaces"


@pytest.fixture
def family(api, widgets, widget):
    """An owner and its child, which may block it."""

    async def family(name, *, block=True, finalizers=()):
        owner = (await api.post(widgets, widget(name))).ok()
        reference = {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "name": name,
            "uid": owner["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": block,
        }
        meta = {"ownerReferences": [reference], "finalizers": list(finalizers)}
        (await api.post(widgets, widget(f"{name}-child", meta=meta))).ok()
        return reference

    return family


@pytest.fixture
def gone(api, widgets, eventually):
    async def gone(name, path=None):
        async def check():
            return (await api.get(f"{path or widgets}/{name}")).status == 404

        return await eventually(check)

    return gone


async def test_delete_answers_with_the_uid_and_the_object_is_gone(api, widgets, widget):
    made = (await api.post(widgets, widget("a"))).ok()
    got = (await api.delete(f"{widgets}/a")).ok()

    assert got["status"] == "Success" and got["details"]["uid"] == made["metadata"]["uid"]
    assert (await api.get(f"{widgets}/a")).status == 404
    assert (await api.delete(f"{widgets}/a")).status == 404


@pytest.mark.parametrize("wanted", [{"uid": "other"}, {"resourceVersion": "1"}])
async def test_a_delete_with_a_wrong_precondition_is_refused(api, widgets, widget, wanted):
    await api.post(widgets, widget("a"))
    got = await api.delete(f"{widgets}/a", {"preconditions": wanted})

    assert (got.status, got.json["reason"]) == (409, "Conflict")
    assert (await api.get(f"{widgets}/a")).status == 200


async def test_finalizers_hold_an_object_until_they_are_gone(api, widgets, widget):
    await api.post(widgets, widget("a", meta={"finalizers": ["example.com/hold"]}))
    held = (await api.delete(f"{widgets}/a")).ok()
    assert held["kind"] == "Widget" and held["metadata"]["deletionTimestamp"]
    assert held["metadata"]["generation"] == 2
    again = (await api.delete(f"{widgets}/a")).ok()
    assert again["metadata"]["resourceVersion"] == held["metadata"]["resourceVersion"]

    added = await api.patch(
        f"{widgets}/a", {"metadata": {"finalizers": ["example.com/hold", "example.com/new"]}}
    )
    assert added.status == 422 and "no new finalizers" in added.json["message"]
    revived = (await api.patch(f"{widgets}/a", {"metadata": {"deletionTimestamp": None}})).ok()
    assert revived["metadata"]["deletionTimestamp"]
    (await api.patch(f"{widgets}/a", {"metadata": {"finalizers": None}})).ok()
    assert (await api.get(f"{widgets}/a")).status == 404


async def test_children_follow_their_owner(api, widgets, family, gone):
    await family("a")
    await api.delete(f"{widgets}/a")

    assert await gone("a-child")


async def test_foreground_waits_for_blocking_children(api, widgets, family, gone, eventually):
    await family("a", finalizers=["example.com/hold"])
    await api.delete(f"{widgets}/a", {"propagationPolicy": "Foreground"})

    async def child_is_going():
        return "deletionTimestamp" in (await api.get(f"{widgets}/a-child")).ok()["metadata"]

    assert await eventually(child_is_going)
    assert (await api.get(f"{widgets}/a")).ok()["metadata"]["finalizers"] == ["foregroundDeletion"]
    await api.patch(f"{widgets}/a-child", {"metadata": {"finalizers": None}})
    assert await gone("a-child") and await gone("a")


async def test_foreground_does_not_wait_for_children_that_do_not_block(api, widgets, family, gone):
    await family("a", block=False, finalizers=["example.com/hold"])
    await api.delete(f"{widgets}/a", {"propagationPolicy": "Foreground"})

    assert await gone("a")
    assert (await api.get(f"{widgets}/a-child")).ok()["metadata"]["deletionTimestamp"]


async def test_foreground_leaves_a_child_to_its_other_owner(api, widgets, widget, family, gone):
    reference = await family("a")
    other = (await api.post(widgets, widget("b"))).ok()
    second = {**reference, "name": "b", "uid": other["metadata"]["uid"], "controller": False}
    await api.patch(f"{widgets}/a-child", {"metadata": {"ownerReferences": [reference, second]}})
    await api.delete(f"{widgets}/a", {"propagationPolicy": "Foreground"})

    assert await gone("a")
    child = (await api.get(f"{widgets}/a-child")).ok()["metadata"]
    assert [owner["name"] for owner in child["ownerReferences"]] == ["b"] and "deletionTimestamp" not in child

    await api.delete(f"{widgets}/b", {"propagationPolicy": "Foreground"})
    assert await gone("b") and await gone("a-child")


async def test_orphans_stay_without_an_owner(api, widgets, family, gone):
    await family("a")
    await api.delete(f"{widgets}/a", {"propagationPolicy": "Orphan"})

    assert await gone("a")
    assert "ownerReferences" not in (await api.get(f"{widgets}/a-child")).ok()["metadata"]


async def test_a_child_with_another_living_owner_only_loses_the_reference(
    api, widgets, widget, family, eventually
):
    reference = await family("a")
    other = (await api.post(widgets, widget("b"))).ok()
    second = {**reference, "name": "b", "uid": other["metadata"]["uid"], "controller": False}
    await api.patch(f"{widgets}/a-child", {"metadata": {"ownerReferences": [reference, second]}})
    await api.delete(f"{widgets}/a")

    async def one_left():
        owners = (await api.get(f"{widgets}/a-child")).ok()["metadata"]["ownerReferences"]
        return [owner["name"] for owner in owners] == ["b"]

    assert await eventually(one_left)


async def test_a_child_of_nobody_is_collected(api, widgets, widget, gone):
    reference = {"apiVersion": "example.com/v1", "kind": "Widget", "name": "never", "uid": "1-2-3"}
    await api.post(widgets, widget("stray", meta={"ownerReferences": [reference]}))

    assert await gone("stray")


async def test_an_owner_in_another_namespace_does_not_count(api, widgets, widget, gone):
    await api.post(NAMESPACES, {"metadata": {"name": "other"}})
    owner = (await api.post(widgets, widget("a"))).ok()
    reference = {
        "apiVersion": "example.com/v1", "kind": "Widget", "name": "a", "uid": owner["metadata"]["uid"],
    }  # fmt: skip
    elsewhere = widgets.replace("default", "other")
    await api.post(elsewhere, widget("child", meta={"ownerReferences": [reference]}))

    assert await gone("child", elsewhere)


async def test_what_a_crash_left_half_done_is_finished_at_the_next_start(
    api, app, state, widgets, family, gone
):
    from datatunerx.server.app import create_app

    await family("a")
    app._collecting.cancel()  # nobody collects: as if killed between the two deletions
    await api.delete(f"{widgets}/a")
    assert (await api.get(f"{widgets}/a-child")).status == 200

    second = create_app(state.store, app._crds, tokens=state.tokens)
    await second.start()
    assert await gone("a-child")
    await second.stop()


async def test_deleting_a_namespace_empties_it(api, widget, widgets, gone):
    await api.post(NAMESPACES, {"metadata": {"name": "team"}})
    there = widgets.replace("default", "team")
    await api.post(there, widget("a", meta={"finalizers": ["example.com/hold"]}))
    await api.post("/api/v1/namespaces/team/configmaps", {"metadata": {"name": "c"}})
    got = (await api.delete(f"{NAMESPACES}/team")).ok()
    assert got["status"]["phase"] == "Terminating"

    refused = await api.post(there, widget("b"))
    assert refused.status == 403 and "being terminated" in refused.json["message"]
    assert await gone("c", "/api/v1/namespaces/team/configmaps")
    assert (await api.get(f"{NAMESPACES}/team")).status == 200, "an object is still held"
    await api.patch(f"{there}/a", {"metadata": {"finalizers": None}})
    assert await gone("team", NAMESPACES)
    assert (await api.delete(f"{NAMESPACES}/default")).status == 403


async def test_delete_collection_takes_what_the_selector_chooses(api, widgets, widget):
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        await api.post(widgets, widget(name, meta={"labels": {"l": label}}))
    (await api.delete(f"{widgets}?labelSelector=l%3Dx")).ok()

    assert [item["metadata"]["name"] for item in (await api.get(widgets)).ok()["items"]] == ["c"]


async def test_a_crd_brings_a_kind_and_takes_it_away(api, gone):
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.acme.io"},
        "spec": {
            "group": "acme.io",
            "scope": "Cluster",
            "names": {"kind": "Gadget", "plural": "gadgets"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object"}}}}}],
        },
    }  # fmt: skip
    made = (await api.post(crds, crd)).ok()
    assert {c["type"] for c in made["status"]["conditions"]} == {"NamesAccepted", "Established"}
    gadget = {"apiVersion": "acme.io/v1", "kind": "Gadget", "metadata": {"name": "g"}}
    (await api.post("/apis/acme.io/v1/gadgets", gadget)).ok()
    await api.delete(f"{crds}/gadgets.acme.io")

    assert await gone("gadgets.acme.io", crds)
    assert (await api.get("/apis/acme.io/v1/gadgets")).status == 404
    (await api.post(crds, crd)).ok()
    assert (await api.get("/apis/acme.io/v1/gadgets")).ok()["items"] == []


async def test_the_servers_own_kinds_cannot_be_removed(api):
    got = await api.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com")

    assert got.status == 403 and "cannot be removed" in got.json["message"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scope": None}, "spec.scope: Required value"),
        ({"group": "other.io"}, "must be spec.names.plural"),
        ({"rule": "self.spec.("}, "does not compile"),
        ({"rule": "nosuch(self)"}, "does not compile"),
        ({"pattern": "("}, "spec.versions"),
    ],
)
async def test_a_crd_that_cannot_work_is_refused(api, change, message):
    schema = {"type": "object", "properties": {"spec": {"type": "object"}}}
    if "rule" in change:
        schema["x-kubernetes-validations"] = [{"rule": change["rule"]}]
    if "pattern" in change:
        schema["properties"]["spec"] = {"type": "string", "pattern": change["pattern"]}
    spec = {
        "group": change.get("group", "acme.io"),
        "scope": change.get("scope", "Namespaced"),
        "names": {"kind": "Gadget", "plural": "gadgets"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
    }
    got = await api.post(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        {"metadata": {"name": "gadgets.acme.io"}, "spec": spec},
    )

    assert got.status == 422 and message in got.json["message"]


async def test_old_events_are_forgotten_and_new_ones_kept(api, app):
    events = "/api/v1/namespaces/default/events"
    about = {"kind": "Widget", "name": "a", "namespace": "default"}
    for name, stamp in (("old", "2020-01-01T00:00:00Z"), ("new", None)):
        event = {"metadata": {"name": name}, "involvedObject": about, "reason": "R", "lastTimestamp": stamp}
        (await api.post(events, event)).ok()
    app._collector._sweep_events()
    await api.post("/api/v1/namespaces", {"metadata": {"name": "later"}})

    assert [item["metadata"]["name"] for item in (await api.get(events)).ok()["items"]] == ["new"]
    chosen = f"{events}?fieldSelector=involvedObject.name%3Da,involvedObject.kind%3DWidget"
    assert len((await api.get(chosen)).ok()["items"]) == 1
