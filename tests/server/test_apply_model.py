"""Random applies by three managers, without a server: what must hold after each of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from datatunerx.server import fieldsets, managed
from datatunerx.server.apply import apply, merge
from datatunerx.server.errors import ApiError
from datatunerx.server.kinds import Kind
from datatunerx.server.managed import Manager

STRING = {"type": "string"}
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "a": STRING,
                "map": {"type": "object", "additionalProperties": STRING},
                "deep": {"type": "object", "properties": {"x": STRING, "y": STRING}},
                "set": {"type": "array", "x-kubernetes-list-type": "set", "items": STRING},
                "atomic": {"type": "array", "items": STRING},
                "keyed": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name", "protocol"],
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": STRING,
                            "protocol": {"type": "string", "default": "TCP"},
                            "value": STRING,
                            "note": STRING,
                        },
                    },
                },
            },
        }
    },
}
KIND = Kind("example.com", "v1", "Thing", "things", "thing", schema=SCHEMA)

value = st.sampled_from(["1", "2"])
item = st.fixed_dictionaries(
    {"name": st.sampled_from("pq")},
    optional={"protocol": st.sampled_from(["TCP", "UDP"]), "value": value, "note": value},
)


def identity(entry: dict[str, str]) -> tuple[str, str]:
    return entry["name"], entry.get("protocol", "TCP")


spec = st.fixed_dictionaries(
    {},
    optional={
        "a": value,
        "map": st.dictionaries(st.sampled_from("kl"), value, max_size=2),
        "deep": st.fixed_dictionaries({}, optional={"x": value, "y": value}),
        "set": st.lists(st.sampled_from("uvw"), unique=True, max_size=3),
        "atomic": st.lists(value, max_size=2),
        "keyed": st.lists(item, unique_by=identity, max_size=3),
    },
)
step = st.tuples(st.sampled_from(["one", "two", "three"]), spec, st.booleans())


def config(wanted: dict) -> dict:
    head = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}}
    return head | ({"spec": wanted} if wanted else {})


def writer(name: str) -> Manager:
    return Manager(name, "Apply", "example.com/v1", "", "", {})


def fields(obj: dict) -> fieldsets.Tree:
    part = managed.view(KIND, obj, "")
    return fieldsets.fields_of(part, KIND.full_schema, containers=True) if part else {}


def said(obj: dict, wanted: dict) -> bool:
    """Whether the object says everything that is wanted of it."""
    have, want = managed.view(KIND, obj, ""), managed.view(KIND, config(wanted), "")
    return fieldsets.changes(have, merge(have, want, KIND.full_schema), KIND.full_schema)[0] == {}


@settings(max_examples=200, deadline=None)
@given(st.lists(step, min_size=1, max_size=8))
def test_applies_keep_their_promises_in_any_order(steps):
    obj, managers = config({}), []
    for name, wanted, force in steps:
        try:
            new, after = apply(KIND, obj, config(wanted), managers, writer(name), force=force)
        except ApiError as error:
            assert error.code == 409 and not force
            continue
        assert said(new, wanted), "what was applied is there"
        everything = fields(new)
        for manager in after:
            assert fieldsets.minus(manager.fields, everything) == {}, "nobody owns what is not there"
        again = apply(KIND, new, config(wanted), after, writer(name), force=False)
        assert again[0] == new, "applying again changes nothing"
        assert {m.identity: m.fields for m in again[1]} == {m.identity: m.fields for m in after}
        wire = [Manager.wire(manager) for manager in after]
        assert [m.fields for m in managed.read(wire)] == [m.fields for m in after]
        obj, managers = new, after

    for name in ("one", "two", "three"):
        obj, managers = apply(KIND, obj, config({}), managers, writer(name), force=False)
    assert obj == config({}) and managers == [], "when all let go nothing is left"
