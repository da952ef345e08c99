"""The CRDs: structural, complete, and in step with the models."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from datatunerx.resources.crds import crd_manifests, structural
from datatunerx.resources.kinds import KINDS, Kind
from datatunerx.resources.wire import Wire

OPTIONAL = (".earlyStopping", ".finetune.earlyStopping", ".origin")
"""Objects of which the absence means something."""
FORBIDDEN = {
    "$ref",
    "$defs",
    "anyOf",
    "oneOf",
    "allOf",
    "nullable",
    "const",
    "title",
    "examples",
    "uniqueItems",
}
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)


def schema_of(kind: Kind) -> dict[str, Any]:
    manifest = next(m for m in crd_manifests() if m["spec"]["names"]["kind"] == kind.name)
    return manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def test_there_are_twelve_kinds_and_no_name_is_used_twice():
    names = [name for k in KINDS for name in {k.plural, k.short, k.name.lower()}]
    assert len(KINDS) == 12
    assert len(names) == len(set(names))


@by_kind
def test_every_schema_is_structural(kind):
    for path, node in nodes(schema_of(kind)):
        assert not FORBIDDEN & node.keys(), path
        assert node.get("type") or node.get("x-kubernetes-preserve-unknown-fields"), path
        assert not (node.get("properties") and "additionalProperties" in node), path


@by_kind
def test_what_has_a_default_is_not_required_and_the_default_is_valid(kind):
    for path, node in nodes(schema_of(kind)):
        for name in node.get("required", []):
            assert "default" not in node["properties"][name], f"{path}.{name}"
        if "default" in node:
            plain = json.loads(json.dumps(node).replace("exclusiveM", "x-exclusiveM"))
            assert jsonschema_rs.is_valid(plain, node["default"]), path


@by_kind
def test_a_default_below_an_object_is_reached_because_the_object_has_one(kind):
    for path, node in nodes(schema_of(kind)["properties"]["spec"]):
        if path and node.get("properties") and not node.get("required"):
            inner = [n for n, child in node["properties"].items() if "default" in child]
            assert not inner or node.get("default") == {} or path.endswith("[]") or path in OPTIONAL, path


def test_what_nobody_asked_for_is_not_made_up_because_its_parts_have_defaults():
    experiment = next(kind for kind in KINDS if kind.name == "FinetuneExperiment")
    stopping = schema_of(experiment)["properties"]["spec"]["properties"]["earlyStopping"]

    assert stopping["properties"]["patience"]["default"] == 3
    assert "default" not in stopping


@by_kind
def test_what_a_rule_walks_is_bounded(kind):
    for path, node in nodes(schema_of(kind)["properties"]["spec"]):
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if node.get("type") == "object" and "properties" not in node and "additionalProperties" in node:
            assert "maxProperties" in node, path


@by_kind
def test_a_status_makes_nothing_up(kind):
    for path, node in nodes(schema_of(kind)["properties"]["status"]):
        assert "default" not in node, path


def test_a_list_of_named_things_is_a_map():
    finetune = next(k for k in KINDS if k.name == "Finetune")
    env = schema_of(finetune)["properties"]["spec"]["properties"]["env"]
    assert env["x-kubernetes-list-type"] == "map"
    assert env["x-kubernetes-list-map-keys"] == ["name"]
    conditions = schema_of(finetune)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_a_union_is_refused_with_its_path():
    class Either(Wire):
        value: int | str

    with pytest.raises(ValueError, match=r"Either\.value: a union"):
        structural(Either)


@by_kind
def test_every_field_of_a_spec_that_is_not_plain_has_its_help(kind):
    described = [n for _, n in nodes(schema_of(kind)["properties"]["spec"]) if n.get("description")]
    assert described
