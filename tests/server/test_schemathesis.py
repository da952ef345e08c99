"""Thousands of requests made from our own OpenAPI document: never a 5xx, and answers as the document says."""

import json
import os
import ssl
import urllib.request

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PATH = "apis/datatunerx.io/v1beta1"
CHECKS = [
    not_a_server_error,
    response_schema_conformance,
    content_type_conformance,
    status_code_conformance,
]
SHORT, LONG = 5_000, 20_000  # a request takes about 35 ms, nearly all of it to think it up
TRAINING = {"llm": "l", "dataset": "d", "hyperparameter": {"ref": "h"}}
SPECS = {
    "LLM": {"source": "file:///m"},
    "Dataset": {"subsets": [{"splits": {"train": ["file:///a.jsonl"]}}]},
    "Hyperparameter": {},
    "DataPlugin": {"entryPoint": "package:function"},
    "ScoringPlugin": {"entryPoint": "package:function"},
    "Scoring": {"model": {"name": "m"}, "dataset": "d"},
    "Finetune": TRAINING,
    "FinetuneJob": {"finetune": TRAINING},
    "FinetuneExperiment": {"matrix": {"llms": ["l"], "datasets": ["d"], "hyperparameters": ["h"]}},
    "LLMCheckpoint": {"finetune": "f", "llm": "l", "dataset": "d", "uri": "file:///c", "step": 1},
    "InferenceService": {"models": [{"name": "m"}]},
    "Run": {"type": "tune", "planId": "p", "planUri": "file:///plan.json"},
}


def document(server):
    context = ssl.create_default_context(cafile=str(server.home / "tls" / "ca.crt"))
    request = urllib.request.Request(
        f"{server.url}/openapi/v3/{PATH}", headers={"Authorization": f"Bearer {server.token}"}
    )
    with urllib.request.urlopen(request, context=context) as answer:
        return aimed(json.load(answer))


def aimed(document):
    """Without what `aim` puts in place itself: to think up paths took nearly half of the time."""
    for path in document["paths"].values():
        for parameter in path.get("parameters", []):
            parameter["schema"] = {"type": "string", "enum": ["default"]}
        for operation in path.values():
            if isinstance(operation, dict) and "parameters" in operation:
                # an endless answer; the tests of watches are elsewhere
                operation["parameters"] = [p for p in operation["parameters"] if p["name"] != "watch"]
    return document


def aim(case, name):
    """At objects that may be there; a random name would be answered by a 404 alone."""
    operation = case.operation.definition.raw["x-kubernetes-group-version-kind"]
    if case.path_parameters:
        case.path_parameters["namespace"] = "default"
        if "name" in case.path_parameters:
            case.path_parameters["name"] = name
    if isinstance(case.query, dict):
        case.query.pop("watch", None)  # one thought up beside the document
    if not isinstance(case.body, dict) or operation["kind"] == "Scale":
        return
    case.body |= {"apiVersion": "datatunerx.io/v1beta1", "kind": operation["kind"]}
    metadata = case.body.setdefault("metadata", {})
    if isinstance(metadata, dict):
        metadata |= {"name": name, "namespace": "default"}
        for field in ("finalizers", "ownerReferences", "uid", "resourceVersion", "managedFields"):
            metadata.pop(field, None)


def fuzz(server, cases):
    """The number of answers by code; objects a and b are there when an operation's turn begins."""
    schema = schemathesis.openapi.from_dict(document(server))
    operations = [found.ok() for found in schema.get_all_operations()]
    each = max(2, round(cases / len(operations) / 2))
    headers = {"Authorization": f"Bearer {server.token}"}
    codes = {}

    def ask(operation, mode, examples):
        @seed(0)
        @settings(
            max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode), name=st.sampled_from(["a", "b", "c", "d"]))
        def one(case, name):
            # What is created gets a name of its own more often than not.
            aim(case, f"{name}-{sum(codes.values())}" if case.method == "POST" and name > "a" else name)
            answer = case.call(base_url=server.url, session=api, headers=headers, verify=authority)
            codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
            case.validate_response(answer, checks=CHECKS)

        one()

    authority = str(server.home / "tls" / "ca.crt")
    api = requests.Session()
    for operation in operations:
        kind = operation.definition.raw["x-kubernetes-group-version-kind"]["kind"]
        if kind in SPECS:
            head = {"apiVersion": "datatunerx.io/v1beta1", "kind": kind, "spec": SPECS[kind]}
            plural = f"{kind.lower()}s"
            for name in "ab":
                url = f"{server.url}/{PATH}/namespaces/default/{plural}"
                answer = api.post(
                    url, json={**head, "metadata": {"name": name}}, headers=headers, verify=authority
                )
                assert answer.status_code in (201, 409), answer.text
        positive = each
        try:
            ask(operation, GenerationMode.NEGATIVE, each)
        except Unsatisfiable:  # nothing about it can be said wrongly
            positive = 2 * each
        ask(operation, GenerationMode.POSITIVE, positive)
    return codes


def tried(server, cases):
    codes = fuzz(server, cases)
    print(f"{sum(codes.values())} requests: {dict(sorted(codes.items()))}")
    assert sum(codes.values()) >= 0.9 * cases
    assert codes[200] + codes[201] > cases // 10, codes  # else it only ever knocked at closed doors
    assert {400, 404, 422} <= set(codes)


def test_requests_of_every_kind_are_answered_as_the_document_says(shared_server):
    tried(shared_server, int(os.environ.get("DTX_CASES") or SHORT))


@pytest.mark.long
def test_twenty_thousand_requests_are_answered_as_the_document_says(shared_server):
    tried(shared_server, LONG)
