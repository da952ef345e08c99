"""Server-side apply: several managers, one object."""

import pytest


@pytest.fixture
def config():
    def config(**spec):
        return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": spec}

    return config


@pytest.fixture
def path(widgets):
    return f"{widgets}/a"


def owners(obj):
    return {(m["manager"], m["operation"], m.get("subresource", "")): m["fieldsV1"] for m in
            obj["metadata"].get("managedFields", [])}  # fmt: skip


async def test_apply_creates_and_owns_what_it_said_and_no_default(api, path, config):
    got = await api.apply(path, config(size=3, args=["x"]), "one")

    assert got.status == 201
    assert owners(got.json) == {("one", "Apply", ""): {"f:spec": {"f:args": {}, "f:size": {}}}}
    assert got.json["spec"]["color"] == "red"


async def test_applying_again_changes_nothing_and_moves_no_version(api, path, config, state):
    first = (await api.apply(path, config(size=3, ports=[{"name": "p"}]), "one")).ok()
    version = state.store.version
    second = await api.apply(path, config(size=3, ports=[{"name": "p"}]), "one")

    assert second.status == 200 and second.json == first
    assert state.store.version == version


async def test_a_field_left_out_is_removed_unless_someone_else_has_it(api, path, config):
    await api.apply(path, config(size=3, labels={"mine": "1", "both": "2"}), "one")
    await api.apply(path, config(size=3, labels={"both": "2"}), "two")
    got = (await api.apply(path, config(size=3), "one")).ok()

    assert got["spec"]["labels"] == {"both": "2"}
    got = (await api.apply(path, config(size=3), "two")).ok()
    assert "labels" not in got["spec"]


async def test_another_managers_value_is_a_conflict_named_by_field(api, path, config):
    await api.apply(path, config(size=3, color="red"), "one")
    got = await api.apply(path, config(size=4, color="blue"), "two")

    assert (got.status, got.json["reason"]) == (409, "Conflict")
    assert got.json["message"].startswith('Apply failed with 2 conflicts: conflict with "one"')
    causes = got.json["details"]["causes"]
    assert {cause["field"] for cause in causes} == {".spec.size", ".spec.color"}
    assert {cause["reason"] for cause in causes} == {"FieldManagerConflict"}


async def test_force_takes_the_field_and_the_loser_no_longer_has_it(api, path, config):
    await api.apply(path, config(size=3, color="red"), "one")
    got = (await api.apply(path, config(size=4), "two", force=True)).ok()

    assert got["spec"]["size"] == 4
    assert owners(got)["one", "Apply", ""] == {"f:spec": {"f:color": {}}}
    kept = (await api.apply(path, config(color="red"), "one")).ok()
    assert kept["spec"]["size"] == 4


async def test_an_equal_value_is_shared(api, path, config):
    await api.apply(path, config(size=3), "one")
    got = (await api.apply(path, config(size=3), "two")).ok()

    assert set(owners(got)) == {("one", "Apply", ""), ("two", "Apply", "")}
    got = await api.apply(path, config(color="blue"), "one")
    assert got.json["spec"]["size"] == 3, "two still wants it"


async def test_an_update_owns_what_it_changed_and_then_conflicts_with_apply(api, path, config):
    await api.apply(path, config(size=3, color="red"), "one")
    await api.patch(f"{path}?fieldManager=hand", {"spec": {"size": 9}})
    got = await api.apply(path, config(size=3, color="red"), "one")

    assert got.status == 409
    assert 'conflict with "hand" using example.com/v1: .spec.size' in got.json["message"]


async def test_two_managers_share_a_keyed_list_item_by_item(api, path, config):
    await api.apply(path, config(size=1, ports=[{"name": "x", "number": 1}]), "one")
    got = (await api.apply(path, config(ports=[{"name": "y", "number": 2}]), "two")).ok()
    assert [port["name"] for port in got["spec"]["ports"]] == ["x", "y"]
    assert 'k:{"name":"y","protocol":"TCP"}' in owners(got)["two", "Apply", ""]["f:spec"]["f:ports"]

    got = await api.apply(path, config(ports=[{"name": "x", "number": 5}]), "two")
    assert got.status == 409
    assert '.spec.ports[name="x",protocol="TCP"].number' in got.json["message"]

    got = (await api.apply(path, config(size=1), "one")).ok()
    assert [port["name"] for port in got["spec"]["ports"]] == ["y"]


async def test_an_item_goes_whole_when_its_only_owner_lets_go(api, path, config):
    for _ in range(5):  # an order of sets hid the opposite once in a while
        ports = [{"name": n, "protocol": "UDP", "number": 1, "note": "n"} for n in "abc"]
        await api.apply(path, config(size=1, ports=ports), "one")
        got = (await api.apply(path, config(size=1, ports=ports[1:2]), "one")).ok()
        assert got["spec"]["ports"] == ports[1:2]


async def test_an_item_with_a_second_owner_stays_with_what_that_one_has(api, path, config):
    await api.apply(path, config(size=1, ports=[{"name": "x", "number": 1}]), "one")
    await api.apply(path, config(ports=[{"name": "x", "note": "mine"}]), "two")
    got = (await api.apply(path, config(size=1), "one")).ok()

    assert got["spec"]["ports"] == [{"name": "x", "protocol": "TCP", "note": "mine"}]


async def test_sets_are_shared_by_value_and_atomic_parts_as_a_whole(api, path, config):
    await api.apply(path, config(size=1, tags=["a", "b"], whole={"k": "1"}), "one")
    got = (await api.apply(path, config(tags=["b", "c"]), "two")).ok()
    assert got["spec"]["tags"] == ["a", "b", "c"]
    got = await api.apply(path, config(whole={"other": "2"}), "two")
    assert got.status == 409 and ".spec.whole" in got.json["message"]
    got = (await api.apply(path, config(size=1, whole={"k": "1"}), "one")).ok()
    assert got["spec"]["tags"] == ["b", "c"]


@pytest.mark.parametrize(
    ("live", "applied", "merged"),
    [  # the cases that structured-merge-diff publishes for sets, and some between
        ("abcd", "adcb", "adcb"),
        ("abcd", "abcd", "abcd"),
        ("ab", "cd", "abcd"),
        ("abc", "na", "nabc"),
        ("xayb", "ban", "xyban"),
        ("abcde", "eb", "acdeb"),
        ("", "ab", "ab"),
    ],
)
async def test_the_last_applied_order_holds_and_what_others_have_keeps_its_place(
    api, path, config, live, applied, merged
):
    await api.apply(path, config(size=1, tags=list(live), ports=[{"name": n} for n in live]), "one")
    for _ in range(2):
        body = config(tags=list(applied), ports=[{"name": name} for name in applied])
        got = (await api.apply(path, body, "two")).ok()["spec"]
        assert "".join(got["tags"]) == merged
        assert "".join(port["name"] for port in got["ports"]) == merged


async def test_an_atomic_list_is_replaced_whole_and_belongs_to_one(api, path, config):
    await api.apply(path, config(size=1, args=["a", "b"]), "one")
    assert (await api.apply(path, config(args=["a"]), "two")).status == 409
    assert (await api.apply(path, config(args=["a", "b"]), "two")).status == 200
    got = (await api.apply(path, config(args=["c"]), "two", force=True)).ok()
    assert got["spec"]["args"] == ["c"] and "f:args" not in owners(got)["one", "Apply", ""]["f:spec"]


async def test_an_updates_field_stays_when_the_applier_who_never_had_it_leaves_it_out(api, path, config):
    await api.apply(path, config(size=1, labels={"a": "1"}), "one")
    await api.patch(f"{path}?fieldManager=hand", {"spec": {"labels": {"b": "2"}}})
    got = (await api.apply(path, config(size=1, labels={"a": "1"}), "one")).ok()
    assert got["spec"]["labels"] == {"a": "1", "b": "2"}
    got = (await api.apply(path, config(size=1), "one")).ok()
    assert got["spec"]["labels"] == {"b": "2"}


async def test_a_field_an_update_took_away_comes_back_with_the_next_apply(api, path, config):
    await api.apply(path, config(size=1, color="blue", ports=[{"name": "x", "note": "n"}]), "one")
    await api.patch(f"{path}?fieldManager=hand", {"spec": {"color": None, "ports": []}})
    got = (await api.apply(path, config(size=1, ports=[{"name": "x", "note": "n"}]), "one")).ok()
    assert got["spec"]["ports"] == [{"name": "x", "protocol": "TCP", "note": "n"}]


async def test_an_empty_map_or_list_is_owned_and_can_be_filled_by_others(api, path, config):
    got = (await api.apply(path, config(size=1, labels={}, tags=[]), "one")).ok()
    assert set(owners(got)["one", "Apply", ""]["f:spec"]) == {"f:labels", "f:size", "f:tags"}
    got = (await api.apply(path, config(labels={"a": "1"}, tags=["t"]), "two")).ok()
    got = (await api.apply(path, config(size=1, labels={}, tags=[]), "one")).ok()
    assert (got["spec"]["labels"], got["spec"]["tags"]) == ({"a": "1"}, ["t"])


async def test_status_is_applied_and_owned_apart(api, path, config):
    await api.apply(path, config(size=1), "one")
    status = {"apiVersion": "example.com/v1", "kind": "Widget", "status": {"phase": "Running"}}
    got = (await api.apply(f"{path}/status", status, "controller")).ok()

    assert got["status"] == {"phase": "Running"} and got["spec"]["size"] == 1
    assert owners(got)["controller", "Apply", "status"] == {"f:status": {"f:phase": {}}}
    got = (await api.apply(path, config(size=1), "one")).ok()
    assert got["status"] == {"phase": "Running"}


async def test_metadata_can_be_owned_and_let_go(api, path, config):
    wanted = config(size=1)
    wanted["metadata"] |= {"labels": {"a": "1"}, "finalizers": ["example.com/x"]}
    await api.apply(path, wanted, "one")
    got = (await api.apply(path, config(size=1), "one")).ok()

    assert "labels" not in got["metadata"] and "finalizers" not in got["metadata"]


async def test_a_client_may_rewrite_or_forget_the_owners(api, path, config):
    first = (await api.apply(path, config(size=1), "one")).ok()
    entry = {**first["metadata"]["managedFields"][0], "manager": "two"}
    ops = [
        {"op": "replace", "path": "/metadata/managedFields", "value": [entry]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": first["metadata"]["resourceVersion"]},
    ]
    got = (await api.patch(path, ops, "application/json-patch+json")).ok()
    assert list(owners(got)) == [("two", "Apply", "")]
    got = (await api.patch(path, {"metadata": {"managedFields": []}})).ok()
    assert owners(got) == {}
    got = await api.apply(path, config(size=2), "one")
    assert got.status == 409 and "before-first-apply" in got.json["message"]


@pytest.mark.parametrize(
    ("query", "change", "status", "message"),
    [
        ("", {}, 400, "fieldManager: is required"),
        ("?fieldManager=x", {"metadata": {"name": "b"}}, 400, "does not match the name on the URL"),
        ("?fieldManager=x", {"metadata": {"managedFields": [{}]}}, 400, "managedFields must be nil"),
        ("?fieldManager=x", {"metadata": {"resourceVersion": "5"}}, 409, "does not exist"),
        ("?fieldManager=x", {"kind": "Other"}, 400, "kind in the body"),
        ("?fieldManager=x", {"spec": {"size": 1, "tags": ["a", "a"]}}, 422, "Duplicate value"),
        ("?fieldManager=x&fieldValidation=Strict", {"spec": {"size": 1, "zz": 1}}, 400, "unknown field"),
    ],
)
async def test_an_apply_that_cannot_be_is_refused(api, path, config, query, change, status, message):
    body = {**config(size=1), **change}
    got = await api.call("PATCH", path + query, body, "application/apply-patch+yaml")

    assert got.status == status and message in got.json["message"]


async def test_updates_hand_fields_from_manager_to_manager(api, widgets, widget, path):
    await api.post(f"{widgets}?fieldManager=maker", widget("a", labels={"x": "1"}))
    got = (await api.patch(f"{path}?fieldManager=painter", {"spec": {"color": "blue"}})).ok()
    found = owners(got)
    assert found["painter", "Update", ""] == {"f:spec": {"f:color": {}}}
    assert "f:color" not in found["maker", "Update", ""]["f:spec"]
    got = (await api.patch(f"{path}?fieldManager=painter", {"spec": {"labels": None}})).ok()
    assert "f:labels" not in owners(got)["maker", "Update", ""]["f:spec"]


async def test_the_user_agent_is_the_manager_of_who_names_none(api, widgets, widget):
    got = (await api.post(widgets, widget("a"))).ok()

    assert list(owners(got)) == [("tests", "Update", "")]
