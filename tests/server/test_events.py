"""Events: one set of objects under two groups; and what happens when the server itself is wrong."""

import logging

import pytest

from datatunerx.server import reads

CORE = "/api/v1/namespaces/default/events"
NEWER = "/apis/events.k8s.io/v1/namespaces/default/events"


def old(name="a", **more):
    about = {"kind": "Widget", "name": "w", "namespace": "default", "uid": "u"}
    return {
        "metadata": {"name": name},
        "involvedObject": about,
        "reason": "Tried",
        "message": "hello",
        "type": "Normal",
        "count": 1,
        **more,
    }


def new(name="b"):
    return {
        "metadata": {"name": name},
        "regarding": {"kind": "Widget", "name": "w", "namespace": "default"},
        "note": "hello from b",
        "reason": "Tried",
        "type": "Warning",
        "action": "Try",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "tests",
        "reportingInstance": "tests-1",
    }


async def test_an_event_of_either_group_is_seen_in_both(api):
    (await api.post(CORE, old())).ok()
    made = (await api.post(NEWER, new())).ok()
    assert made["apiVersion"] == "events.k8s.io/v1" and made["note"] == "hello from b"

    a = (await api.get(f"{NEWER}/a")).ok()
    b = (await api.get(f"{CORE}/b")).ok()

    assert (a["regarding"]["name"], a["note"], a["deprecatedCount"]) == ("w", "hello", 1)
    assert (b["involvedObject"]["name"], b["message"], b["reportingComponent"]) == (
        "w",
        "hello from b",
        "tests",
    )
    assert not {"involvedObject", "message", "count"} & set(a) and "regarding" not in b
    listed = [(await api.get(path)).ok() for path in (CORE, NEWER)]
    assert listed[0]["metadata"]["resourceVersion"] == listed[1]["metadata"]["resourceVersion"]
    assert [len(each["items"]) for each in listed] == [2, 2]
    assert {event["apiVersion"] for event in listed[1]["items"]} == {"events.k8s.io/v1"}


async def test_each_group_selects_by_its_own_names(api):
    (await api.post(CORE, old())).ok()
    for path, field in ((CORE, "involvedObject.name"), (NEWER, "regarding.name")):
        assert len((await api.get(f"{path}?fieldSelector={field}=w,reason=Tried")).ok()["items"]) == 1
        assert (await api.get(f"{path}?fieldSelector={field}=x")).ok()["items"] == []
    assert (await api.get(f"{NEWER}?fieldSelector=involvedObject.name=w")).status == 400


async def test_both_are_changed_watched_and_deleted_as_one(api):
    stream = await api.watch(f"{NEWER}?watch=1&resourceVersion=0")
    (await api.post(CORE, old())).ok()
    patched = await api.patch(f"{NEWER}/a", {"note": "again", "deprecatedCount": 2})
    assert patched.ok()["note"] == "again"
    assert (await api.get(f"{CORE}/a")).ok()["count"] == 2
    whole = (await api.get(f"{NEWER}/a")).ok() | {"note": "replaced"}
    assert (await api.put(f"{NEWER}/a", whole)).ok()["note"] == "replaced"
    applied = await api.apply(f"{NEWER}/c", {**new("c"), "note": "applied"}, "me")
    assert applied.ok()["note"] == "applied" and (await api.get(f"{CORE}/c")).ok()["message"] == "applied"
    (await api.delete(f"{NEWER}/a")).ok()

    seen = [await stream.next() for _ in range(5)]

    told = [(event["type"], event["object"].get("note")) for event in seen]
    changes = [("ADDED", "hello"), ("MODIFIED", "again"), ("MODIFIED", "replaced")]
    assert told == [*changes, ("ADDED", "applied"), ("DELETED", "replaced")]
    assert (await api.get(f"{CORE}/a")).status == 404
    await stream.close()


async def test_an_unforeseen_error_is_a_status_and_its_trace_is_in_the_log_alone(
    api, widgets, monkeypatch, caplog
):
    def broken(*arguments):
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(reads, "entries", broken)
    with caplog.at_level(logging.ERROR):
        answer = await api.get(widgets)

    assert answer.status == 500
    assert (answer.json["kind"], answer.json["reason"]) == ("Status", "InternalError")
    assert "secret" not in answer.body.decode()
    assert "ZeroDivisionError: a secret detail" in caplog.text


async def test_an_error_in_the_middle_of_an_answer_breaks_it_off(api, widgets, widget, monkeypatch):
    (await api.post(widgets, widget("a"))).ok()

    def broken(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(reads, "shown_bytes", broken)
    with pytest.raises(ZeroDivisionError):
        stream = await api.watch(f"{widgets}?watch=1")
        await stream.ended()
