"""What we generate is held against Kubernetes' own schemas, and against the rules for structural ones."""

import copy
import json
import re
from importlib.resources import files

import jsonschema_rs
import pytest

from datatunerx.resources.crds import crd_manifests

CRDS = {crd["spec"]["names"]["kind"]: crd for crd in crd_manifests()}
KEYWORDS = {
    "type", "description", "default", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "minLength", "maxLength", "pattern", "minItems", "maxItems", "maxProperties", "required", "properties",
    "additionalProperties", "items", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-validations",
}  # fmt: skip
UNBOUNDED = re.compile(r"\(\?[=!<]|\\[1-9]")


@pytest.fixture(scope="module")
def kubernetes():
    """Kubernetes 1.33's own JSON schema of a CRD, in which unknown fields are errors."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / "v1.33.0-local-strict"
    defs = json.loads((folder / "_definitions.json").read_text())["$defs"]
    name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition"
    return jsonschema_rs.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": defs})


@pytest.mark.parametrize("kind", CRDS)
def test_kubernetes_own_schema_accepts_each_crd(kubernetes, kind):
    kubernetes.validate(CRDS[kind])


@pytest.mark.parametrize(
    "broken",
    [
        {"subresources": {"scale": {"specReplicasPath": 1}}},
        {"selectableField": []},
        {"schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {"$def": "b"}}}}},
    ],
)
def test_kubernetes_own_schema_refuses_a_crd_that_is_wrong(kubernetes, broken):
    crd = copy.deepcopy(CRDS["Run"])
    crd["spec"]["versions"][0] |= broken
    with pytest.raises(jsonschema_rs.ValidationError):
        kubernetes.validate(crd)


def nodes(schema, path=""):
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from nodes(schema[word], f"{path}[]")


@pytest.mark.parametrize("kind", CRDS)
def test_each_schema_is_structural(kind):
    """https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/"""
    schema = CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema["properties"]["metadata"] == {"type": "object"}
    for path, node in nodes(schema):
        assert set(node) <= KEYWORDS, f"{path}: {set(node) - KEYWORDS}"
        assert node.get("type") or node.get("x-kubernetes-preserve-unknown-fields"), path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert not UNBOUNDED.search(node.get("pattern", "")), f"{path}: beyond RE2"
        for key in node.get("x-kubernetes-list-map-keys", ()):
            item = node["items"]
            scalar = item["properties"][key]["type"] in ("string", "integer", "boolean")
            assert scalar and (key in item.get("required", ()) or "default" in item["properties"][key]), path
        for name in node.get("required", ()):
            assert name in node["properties"], f"{path}: {name} is required and not there"
