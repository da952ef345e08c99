"""What deploy/operator.yaml lets the operator do is what its controllers do: no less, and no more."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml

from datatunerx.client import Api, InProcess
from datatunerx.client.errors import Unauthorized
from datatunerx.client.lease import Lease
from datatunerx.controllers.secrets import SECRETS
from datatunerx.resources import LLM, Finetune, FinetuneExperiment, FinetuneJob, LLMCheckpoint, Scoring
from datatunerx.resources.kinds import KINDS
from datatunerx.resources.material import DataPlugin, Dataset
from datatunerx.resources.outcome import InferenceService, ScoringPlugin
from datatunerx.resources.wire import RETRY

MANIFEST = Path(__file__).resolve().parents[2] / "deploy" / "operator.yaml"
PLUGIN = {"entryPoint": "package.module:function"}
KEYS = {"name": "keys"}
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def documents():
    return list(yaml.safe_load_all(MANIFEST.read_text()))


def of_kind(kind):
    return [document for document in documents() if document["kind"] == kind]


def granted():
    """(group, resource, verb) of every rule of every role."""
    return {
        (group, resource, verb)
        for role in (*of_kind("ClusterRole"), *of_kind("Role"))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked(method, path, query):
    """The permission that a request needs, as a cluster's authorizer reads its path."""
    root, *parts = path.strip("/").split("/")
    group = "" if root == "api" else parts.pop(0)
    parts.pop(0)  # the version
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    plural, name, subresource = [*parts, "", ""][:3]
    verb = VERBS.get(method) or ("get" if name else "list")
    verb = "watch" if (query or {}).get("watch") else verb
    return group, f"{plural}/{subresource}" if subresource else plural, verb


class Guard:
    """A transport that refuses what is not granted, as a cluster would, and notes what was asked."""

    def __init__(self, inner, allowed):
        self.inner, self.allowed, self.used, self.refused = inner, allowed, set(), set()
        self.owners = set()

    def check(self, method, path, query):
        wanted = asked(method, path, query)
        self.used.add(wanted)
        if wanted not in self.allowed:
            self.refused.add(wanted)
            raise Unauthorized(403, "Forbidden", f"may not {wanted}")

    async def request(self, method, path, *, query=None, **rest):
        self.check(method, path, query)
        if method == "POST":
            metadata = json.loads(rest["body"])["metadata"]
            self.owners |= {owner["kind"] for owner in metadata.get("ownerReferences", ())}
        return await self.inner.request(method, path, query=query, **rest)

    def stream(self, path, *, query=None, **rest):
        self.check("GET", path, query)
        return self.inner.stream(path, query=query, **rest)


@pytest.fixture
async def guarded(platform):
    """The platform with controllers that may do what the manifest says; whoever tests may do everything."""
    await platform.kill_controllers()
    everything = platform.api
    guard = Guard(InProcess(platform.app), granted())
    platform.api = Api(guard)
    platform.start_controllers()
    platform.api = everything
    platform.guard = guard
    return platform


async def held(api, model):
    return (await api.get(model, "p")).metadata.finalizers


async def journey(platform, make_objects):
    """Everything that can befall an experiment, once."""
    api, behaviour = platform.api, platform.backend.behaviour
    behaviour.die = {"e-g1": 1}
    behaviour.slow_scoring = True
    *parts, experiment = make_objects(2)
    platform.backend.step = lambda: None
    service = {"metadata": {"name": "s"}, "spec": {"models": [{"kind": "LLM", "name": "base"}]}}
    plugins = [of.parse({"metadata": {"name": "p"}, "spec": PLUGIN}) for of in (DataPlugin, ScoringPlugin)]
    await platform.apply(*parts, experiment, *plugins, InferenceService.parse(service))
    await platform.until(lambda: workers(platform, "inspect"))
    for worker in await workers(platform, "inspect"):  # as by a shutdown
        await platform.backend.stop(worker.submission.run)
    del platform.backend.step
    await platform.until(lambda: workers(platform, "tune"))
    await api.patch(FinetuneExperiment, "e", {"spec": {"suspend": True}})
    await platform.until(lambda: phase(api, FinetuneExperiment, "e", "Suspended"))
    behaviour.slow_scoring = False
    await api.patch(FinetuneExperiment, "e", {"spec": {"suspend": False}})
    await platform.ended(FinetuneExperiment, "e")
    trained = {"llm": "base", "dataset": "data", "hyperparameter": {"ref": "g0"}}
    served = {"metadata": {"name": "served"}, "spec": {"finetune": trained, "serve": True}}
    await api.create(FinetuneJob.parse(served))
    await platform.ended(FinetuneJob, "served")
    await api.delete(FinetuneJob, "served")
    behaviour.refuse_scoring, behaviour.scores_die = {"unscored"}, [-9, -9]
    await api.create(FinetuneJob.parse({"metadata": {"name": "unscored"}, "spec": {"finetune": trained}}))
    await platform.until(lambda: phase(api, FinetuneJob, "unscored", "Failed"))
    await api.patch(FinetuneJob, "unscored", {"metadata": {"annotations": {RETRY: "1"}}})
    await platform.until(lambda: phase(api, FinetuneJob, "unscored", "Succeeded"))
    await api.delete(FinetuneJob, "unscored")
    model = {"kind": "LLMCheckpoint", "name": "e-g0"}
    measured = {"model": model, "dataset": "data", "measure": {"metrics": ["accuracy"]}}
    await api.create(Scoring.parse({"metadata": {"name": "again"}, "spec": measured}))
    await platform.until(lambda: phase(api, Scoring, "again", "Succeeded"))
    onwards = {"metadata": {"name": "onwards"}, "spec": trained | {"llm": "e-g0", "suspend": True}}
    await api.create(Finetune.parse(onwards))  # a checkpoint named as a base: an LLM is made of it
    await platform.until(lambda: made_of(api, "checkpoint://e-g0"))
    await api.delete(Finetune, "onwards")
    await api.delete(LLM, "e-g0")
    await api.create_raw(SECRETS, {"metadata": {"name": "keys"}, "stringData": {"token": "t"}})
    far = {"subsets": [{"splits": {"train": ["s3://bucket/a.jsonl"]}}], "credentials": {"secretRef": KEYS}}
    await api.create(Dataset.parse({"metadata": {"name": "far"}, "spec": far}))
    await platform.until(lambda: ready(api, "far"))
    made = {"subsets": [{"splits": {"train": ["file:///a.jsonl"]}}], "plugin": {"ref": "p"}}
    await api.create(Dataset.parse({"metadata": {"name": "made"}, "spec": made}))
    matrix = {"llms": ["base"], "datasets": ["data"], "hyperparameters": ["g0"]}
    later = {"matrix": matrix, "suspend": True, "scoring": {"plugins": [{"ref": "p"}]}}
    await api.create(FinetuneExperiment.parse({"metadata": {"name": "later"}, "spec": later}))
    await platform.until(lambda: held(api, DataPlugin))
    await platform.until(lambda: held(api, ScoringPlugin))
    await api.delete(FinetuneExperiment, "later")
    for model in (FinetuneJob, LLMCheckpoint):
        await api.delete(model, "e-g1")
    await api.delete(FinetuneExperiment, "e")
    await api.delete(InferenceService, "s")
    for part in parts:
        await api.delete(type(part), part.metadata.name)
    await platform.until(lambda: gone(api, Finetune))


async def workers(platform, type_):
    return platform.backend.of(type_)


async def made_of(api, source):
    return [llm for llm in await api.list(LLM) if llm.spec.source == source]


async def gone(api, model):
    return not await api.list(model)


async def ready(api, name):
    return (await api.get(Dataset, name)).status.is_true("Ready")


async def phase(api, model, name, wanted):
    return (await api.get(model, name)).status.phase == wanted


async def lead(guard):
    lease = Lease(Api(guard), "operator", "default", "me")
    await lease.acquire()
    assert await lease._try()
    await lease.release()


@pytest.mark.slow
async def test_the_operators_roles_grant_what_its_controllers_do_and_no_more(guarded, make_objects):
    await lead(guarded.guard)
    await journey(guarded, make_objects)
    guard, plurals = guarded.guard, {kind.name: kind.plural for kind in KINDS}

    def idle():
        """What is granted and was not needed so far."""
        # To make a child whose owner must wait for it, a cluster wants the right to the owner's finalizers.
        needed = {("datatunerx.io", f"{plurals[owner]}/finalizers", "update") for owner in guard.owners}
        assert needed <= granted()
        # Who may list a kind may get it: that tells nothing more.
        gets = {(group, plural, "get") for group, plural, verb in guard.used if verb == "list"}
        return granted() - guard.used - needed - gets

    for _ in range(600):
        if not idle():
            break
        await asyncio.sleep(0.05)
    assert guard.refused == set()
    assert idle() == set()


def test_a_cluster_takes_every_part_of_the_manifest():
    schemas = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for document in documents():
        schemas.validate(document, "1.33", strict=True)


def test_the_manifest_is_whole_and_its_parts_belong_together():
    kinds = [document["kind"] for document in documents()]
    assert kinds == [
        "Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding",
        "PersistentVolumeClaim", "Deployment",
    ]  # fmt: skip
    [deployment], [account], [claim] = map(of_kind, ("Deployment", "ServiceAccount", "PersistentVolumeClaim"))
    pod = deployment["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert (
        deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    )
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}, (
        "two pods cannot see each other's processes"
    )
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    [container] = pod["containers"]
    assert container["command"] == ["dtx", "operator"]
    assert container["env"][0]["value"] == container["volumeMounts"][0]["mountPath"]
    for binding in (*of_kind("ClusterRoleBinding"), *of_kind("RoleBinding")):
        role = binding["roleRef"]
        assert [one for one in of_kind(role["kind"]) if one["metadata"]["name"] == role["name"]]
        [subject] = binding["subjects"]
        assert (subject["name"], subject["namespace"]) == (account["metadata"]["name"], "datatunerx")
    for document in documents():
        cluster_wide = document["kind"] in ("Namespace", "ClusterRole", "ClusterRoleBinding")
        assert cluster_wide or document["metadata"]["namespace"] == "datatunerx"
