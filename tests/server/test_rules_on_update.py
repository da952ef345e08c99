"""Which rules of a kind are asked again when an object changes."""

import copy

import pytest

from datatunerx.server.app import create_app

PATH = "/apis/example.com/v1/namespaces/default/gauges"
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "gauges.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"kind": "Gauge", "plural": "gauges"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"size": {"type": "integer"}, "note": {"type": "string"}},
                            }
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture
async def api(state, stranger_of):
    app = create_app(state.store, [CRD], tokens=state.tokens)
    await app.start()
    caller = stranger_of(app)
    caller.user = "tester"
    yield caller
    await app.stop()
    await state.store.close()


async def tighten(api, *rules):
    crd = copy.deepcopy(CRD)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["x-kubernetes-validations"] = [*rules]
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gauges.example.com"
    (await api.patch(path, {"spec": crd["spec"]})).ok()


async def test_a_new_rule_is_asked_only_of_what_changes(api):
    gauge = {"apiVersion": "example.com/v1", "kind": "Gauge", "metadata": {"name": "a"}, "spec": {"size": 90}}
    (await api.post(PATH, gauge)).ok()
    await tighten(api, {"rule": "self.size <= 64", "message": "too big"})

    (await api.patch(f"{PATH}/a", {"metadata": {"labels": {"x": "y"}}})).ok()
    refused = await api.patch(f"{PATH}/a", {"spec": {"note": "still 90"}})
    assert refused.status == 422 and "too big" in refused.json["message"]


async def test_a_rule_about_the_change_is_asked_although_nothing_changed(api):
    gauge = {"apiVersion": "example.com/v1", "kind": "Gauge", "metadata": {"name": "a"}, "spec": {"size": 9}}
    (await api.post(PATH, gauge)).ok()
    await tighten(api, {"rule": "self.size > oldSelf.size", "message": "must grow"})

    assert (await api.patch(f"{PATH}/a", {"metadata": {"labels": {"x": "y"}}})).status == 422
