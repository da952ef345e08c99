"""Each kubectl command against the real server: what it sends, and what it makes of our answers."""

import json
import re
import subprocess
import sys
import threading
import time

import pytest

pytestmark = [pytest.mark.kubectl, pytest.mark.slow, pytest.mark.timeout(300)]

MINORS = ["1.27", "1.28", "1.29", "1.30", "1.31", "1.32", "1.33"]
SPEC = {"llm": "llama", "dataset": "d", "hyperparameter": {"ref": "h"}}
FULL = "finetunes.datatunerx.io"


def finetune(name, spec=None, **metadata):
    head = {"apiVersion": "datatunerx.io/v1beta1", "kind": "Finetune"}
    return {**head, "metadata": {"name": name, **metadata}, "spec": {**SPEC, **(spec or {})}}


def make(k, *objects):
    # a List: some versions do not split a stream of JSON at its dashes
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    return k.ok("create", "-f", "-", stdin=json.dumps(listed))


def value(k, name, path, resource="ft"):
    return k.ok("get", resource, name, "-o", f"jsonpath={path}")


def soon(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.1)
    return what()


@pytest.mark.parametrize("minor", MINORS)
def test_every_version_of_kubectl_does_its_daily_work(kubectl_of_minor, minor):
    k = kubectl_of_minor(minor)
    assert f"v{minor}." in k.ok("version", "--output=yaml")
    assert f"finetunes {'ft':>9}" in re.sub(" +", " ", k.ok("api-resources")).replace(" ft", f" {'ft':>9}", 1)
    assert "-required-" in k.ok("explain", "ft.spec")
    assert "learningRate" in k.ok("explain", "hp", "--recursive")
    assert "yes" in k.ok("auth", "can-i", "create", FULL)
    if minor not in ("1.27",):  # there `whoami` is still called alpha
        assert "Username" in k.ok("auth", "whoami")
    assert "ft" in k.ok("create", "configmap", "c", "--from-literal=a=ft", "-o", "yaml")
    assert "created" in k.ok("create", "secret", "generic", "s", "--from-literal=a=b")
    assert "finetune.datatunerx.io/a created" in make(k, finetune("a"))
    assert 'unknown field "spec.lmm"' in k.refused("create", "-f", "-", stdin=finetune("b", {"lmm": "x"}))
    assert re.search(r"NAME +PHASE .*AGE", k.ok("get", "finetunes"))
    assert "llama" in k.ok("get", "ft", "-o", "wide")
    assert "generation: 1" in k.ok("get", "ft", "a", "-o", "yaml")
    applied = finetune("ap", {"nodeSelector": {"gpu": "yes"}})
    assert "created" in k.ok("apply", "-f", "-", stdin=applied)
    assert "unchanged" in k.ok("apply", "-f", "-", stdin=applied)
    changed = finetune("ap", {"llm": "qwen"})
    assert "+  llm: qwen" in k.refused("diff", "-f", "-", stdin=changed)
    assert "configured" in k.ok("apply", "-f", "-", stdin=changed)
    assert value(k, "ap", "{.spec.llm}{.spec.nodeSelector}") == "qwen"
    assert "serverside-applied" in k.ok("apply", "--server-side", "-f", "-", stdin=finetune("ss"))
    told = k.refused(
        "apply", "--server-side", "--field-manager=other", "-f", "-", stdin=finetune("ss", {"llm": "x"})
    )
    assert 'conflict with "kubectl": .spec.llm' in told
    assert "labeled" in k.ok("label", "ft", "a", "x=1")
    assert "patched" in k.ok("patch", "ft", "a", "--type=merge", "-p", '{"spec":{"llm":"q"}}')
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    k.ok("patch", "ft", "a", "--subresource=status", "--type=merge", "-p", json.dumps(status))
    assert "condition met" in k.ok("wait", "ft/a", "--for=condition=Ready", "--timeout=5s")
    assert "Events:" in k.ok("describe", "ft", "a")
    assert "No events" in k.ok("events", "--for", "finetune/a")
    assert "deleted" in k.ok("delete", "ft", "a", "ap")
    assert "deleted" in k.ok("delete", "ns", k.namespace, "--timeout=20s")


def test_kubectl_finds_out_what_there_is(k):
    assert "datatunerx.io/v1beta1" in k.ok("api-versions")
    assert f"{FULL}" in k.ok("api-resources", "--categories=dtx", "-o", "name")
    verbs = "list,watch,create,patch,delete,deletecollection"
    assert FULL in k.ok("api-resources", f"--verbs={verbs}", "-o", "name")
    assert '"name":"finetunes/status"' in k.ok("get", "--raw", "/apis/datatunerx.io/v1beta1")
    assert '"name":"inferenceservices/scale"' in k.ok("get", "--raw", "/apis/datatunerx.io/v1beta1")
    assert "apis/datatunerx.io/v1beta1" in k.ok("get", "--raw", "/openapi/v3")
    assert FULL in k.ok("get", "crd", FULL)
    assert "Active" in k.ok("get", "ns", k.namespace)
    assert "doesn't have a resource type" in k.refused("get", "nothings")
    assert "*.*" in k.ok("auth", "can-i", "--list")


def test_kubectl_reads_as_it_is_used_to(k):
    assert "No resources found" in k.ok("get", "ft")
    labelled = [finetune(f"s{n}", labels={"grp": "s", "n": str(n)}) for n in range(1, 6)]
    make(k, finetune("a"), *labelled)
    assert "AlreadyExists" in k.refused("create", "-f", "-", stdin=finetune("a"))
    assert "NotFound" in k.refused("get", "ft", "zz")
    assert k.ok("get", "ft", "-o", "name", "-l", "grp=s,n!=1,n in (1,2)") == "finetune.datatunerx.io/s2\n"
    assert k.ok("get", "ft", "-o", "name", "--field-selector", "metadata.name=s3") == (
        "finetune.datatunerx.io/s3\n"
    )
    assert "s5" in k.ok("get", "ft", "--field-selector", "spec.llm=llama")
    assert "not supported" in k.refused("get", "ft", "--field-selector", "spec.nothing=1")
    ordered = k.ok("get", "ft", "-l", "grp=s", "--sort-by={.metadata.labels.n}", "--no-headers")
    assert [line.split()[0] for line in ordered.splitlines()] == ["s1", "s2", "s3", "s4", "s5"]
    assert "grp=s,n=1" in k.ok("get", "ft", "s1", "--show-labels")
    assert len(k.ok("get", "ft", "--chunk-size=2", "--no-headers").splitlines()) == 6
    assert k.namespace in k.ok("get", "ft", "-A")
    assert re.search("a .*<none>|<unset>|a ", k.ok("get", "ft", "a", "--subresource=status"))


def test_kubectl_is_told_what_is_wrong(k):
    refusals = [
        (finetune("Bad_Name"), "metadata.name: Invalid value"),
        (finetune("b", {"workers": "x"}), "must be of type integer"),
        (finetune("b", {"workers": 65}), "workers must be between 1 and 64"),
        (finetune("b", {"stop": "never"}), "Unsupported value"),
        (finetune("b", {"env": [{"name": "A"}, {"name": "A"}]}), "Duplicate value"),
        (finetune("b", annotations={"a": "x" * 270_000}), "Too long"),
        ({**finetune("b"), "spec": {"llm": "x"}}, "spec.dataset: Required value"),
    ]
    for obj, words in refusals:
        assert words in k.refused("create", "-f", "-", stdin=obj)
    unknown = finetune("w", {"lmm": "x"})
    assert 'Warning: unknown field "spec.lmm"' in k.ok("create", "--validate=warn", "-f", "-", stdin=unknown)
    assert "server dry run" in k.ok("create", "--dry-run=server", "-f", "-", stdin=finetune("dry"))
    assert "NotFound" in k.refused("get", "ft", "dry")
    make(k, finetune("a"))
    assert "immutable" in k.refused("patch", "ft", "a", "--type=merge", "-p", '{"spec":{"dataset":"o"}}')
    strategic = k.refused("patch", "ft", "a", "-p", '{"spec":{"llm":"o"}}')
    assert "strategic-merge-patch+json is not supported by datatunerx.io/v1beta1" in strategic


def rows_of(process):
    """The first two words of each line that the process says, as they come."""
    rows = []
    read = lambda: rows.extend(line.split()[:2] for line in process.stdout)  # noqa: E731
    threading.Thread(target=read, daemon=True).start()
    return rows


def test_kubectl_watches(k):
    make(k, finetune("old"), finetune("mark", labels={"sel": "off"}))
    program = [k.program, "--namespace", k.namespace, "get", "ft", "--watch", "--output-watch-events"]
    with (
        subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=k.server.env) as everything,
        subprocess.Popen(
            [*program, "--watch-only", "-l", "sel=on"], stdout=subprocess.PIPE, text=True, env=k.server.env
        ) as chosen,
    ):
        seen, entered = rows_of(everything), rows_of(chosen)

        def watching():  # --watch-only does not say when it begins
            k.ok("label", "ft", "mark", "sel=on", "--overwrite")
            k.ok("label", "ft", "mark", "sel=off", "--overwrite")
            return ["ADDED", "old"] in seen and ["DELETED", "mark"] in entered

        assert soon(watching)
        make(k, finetune("w"))
        k.ok("label", "ft", "w", "sel=on")
        k.ok("label", "ft", "w", "sel=off", "--overwrite")
        k.ok("delete", "ft", "w")
        assert soon(lambda: ["DELETED", "w"] in seen and ["DELETED", "w"] in entered)
        everything.terminate()
        chosen.terminate()
    changes = [["MODIFIED", "w"]] * 2
    assert [row for row in seen[1:] if row[1] != "mark"] == [
        ["ADDED", "old"], ["ADDED", "w"], *changes, ["DELETED", "w"],
    ]  # fmt: skip
    assert [row for row in entered if row[1] == "w"] == [["ADDED", "w"], ["DELETED", "w"]]


def test_kubectl_changes_things(k):
    make(k, finetune("a"))
    editor = {**k.server.env, "KUBE_EDITOR": "sed -i s/llama/qwen/"}
    edited = subprocess.run(
        [k.program, "-n", k.namespace, "edit", "ft", "a"], env=editor, capture_output=True, text=True
    )
    assert "edited" in edited.stdout and value(k, "a", "{.spec.llm}") == "qwen"
    same = k.ok("patch", "ft", "a", "--type=merge", "-p", '{"spec":{"llm":"qwen"}}')
    assert "patched (no change)" in same
    test = {"op": "test", "path": "/spec/llm", "value": "qwen"}
    replace = {"op": "replace", "path": "/spec/llm", "value": "phi"}
    assert "patched" in k.ok("patch", "ft", "a", "--type=json", "-p", json.dumps([test, replace]))
    refused = k.refused("patch", "ft", "a", "--type=json", "-p", json.dumps([test, replace]))
    assert "testing path /spec/llm failed" in refused
    old = json.loads(k.ok("get", "ft", "a", "-o", "json"))
    k.ok("label", "ft", "a", "x=1")
    assert "already has a value" in k.refused("label", "ft", "a", "x=2")
    assert "Conflict" in k.refused("replace", "-f", "-", stdin=old)
    old["metadata"]["resourceVersion"] = value(k, "a", "{.metadata.resourceVersion}")
    assert "replaced" in k.ok("replace", "-f", "-", stdin=old)
    assert "replaced" in k.ok("replace", "--force", "-f", "-", stdin=finetune("a"))
    assert "annotated" in k.ok("annotate", "ft", "a", "note=hi")
    assert value(k, "a", "{.metadata.generation}") == "1"


def test_kubectl_scales_a_service(k):
    models = [{"kind": "LLM", "name": "m"}]
    make(
        k,
        {
            "apiVersion": "datatunerx.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "x"},
            "spec": {"models": models},
        },
    )
    assert value(k, "x", "{.spec.replicas}", "isvc") == "1"
    assert "scaled" in k.ok("scale", "isvc/x", "--replicas=0")
    assert value(k, "x", "{.spec.replicas}", "isvc") == "0"
    assert "xpected replicas" in k.refused("scale", "isvc/x", "--replicas=4", "--current-replicas=1")
    assert "between 0 and 64" in k.refused("scale", "isvc/x", "--replicas=65")


def test_kubectl_applies_beside_other_managers(k):
    selected = finetune("a", {"nodeSelector": {"gpu": "yes"}})
    apply = ("apply", "--server-side", "-f", "-")
    assert "serverside-applied" in k.ok(*apply, stdin=selected)
    k.ok(*apply, stdin=finetune("a"))
    assert value(k, "a", "{.spec.nodeSelector}") == ""
    other = finetune("a", {"llm": "qwen"})
    assert 'conflict with "kubectl"' in k.refused(*apply, "--field-manager=o", stdin=other)
    k.ok(*apply, "--field-manager=o", "--force-conflicts", stdin=other)
    head = {**finetune("a"), "spec": {}}
    for manager, name in (("x", "X"), ("y", "Y")):
        k.ok(*apply, f"--field-manager={manager}", stdin={**head, "spec": {"env": [{"name": name}]}})
    assert value(k, "a", "{.spec.env[*].name}") == "X Y"
    k.ok(*apply, "--field-manager=x", stdin=head)
    assert value(k, "a", "{.spec.env[*].name}") == "Y"
    k.ok("apply", "-f", "-", stdin=finetune("moves"))
    k.ok(*apply, stdin=finetune("moves"))
    told = value(k, "moves", '{range .metadata.managedFields[*]}{.operation} {.manager}{"\\n"}{end}')
    assert told.splitlines()[0] == "Apply kubectl" and "kubectl-client-side-apply" not in told


def test_kubectl_deletes_and_waits(k):
    held = finetune("held", finalizers=["example.com/hold"])
    make(k, finetune("a", labels={"grp": "s"}), finetune("b"), held)
    assert "deleted" in k.ok("delete", "ft", "-l", "grp=s")
    assert "NotFound" in k.refused("delete", "ft", "a")
    assert k.ok("delete", "ft", "a", "--ignore-not-found") == ""
    assert "timed out" in k.refused("delete", "ft", "held", "--timeout=1s")
    assert value(k, "held", "{.metadata.deletionTimestamp}").startswith("20")
    with subprocess.Popen(
        [k.program, "-n", k.namespace, "wait", "ft/held", "--for=delete", "--timeout=20s"], env=k.server.env
    ) as waiting:
        time.sleep(0.5)
        k.ok("patch", "ft", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        assert waiting.wait() == 0
    assert "deleted" in k.ok("delete", "ft", "--all")


@pytest.mark.parametrize("cascade", ["background", "foreground", "orphan"])
def test_children_go_or_stay_as_kubectl_asks(k, cascade):
    job = {
        "apiVersion": "datatunerx.io/v1beta1",
        "kind": "FinetuneJob",
        "metadata": {"name": "owner"},
        "spec": {"finetune": SPEC},
    }
    made = json.loads(k.ok("create", "-o", "json", "-f", "-", stdin=job))
    owner = {
        "apiVersion": job["apiVersion"],
        "kind": "FinetuneJob",
        "name": "owner",
        "uid": made["metadata"]["uid"],
        "blockOwnerDeletion": True,
    }
    make(k, finetune("child", ownerReferences=[owner], finalizers=["example.com/hold"]))
    k.ok("delete", "fj", "owner", f"--cascade={cascade}", "--wait=false")
    let_go = ("patch", "ft", "child", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')

    if cascade == "orphan":
        assert soon(lambda: value(k, "child", "{.metadata.ownerReferences}") == "")
        return
    assert soon(lambda: value(k, "child", "{.metadata.deletionTimestamp}") != "")
    finalizers = k("get", "fj", "owner", "-o", "jsonpath={.metadata.finalizers}").stdout
    assert finalizers == ('["foregroundDeletion"]' if cascade == "foreground" else "")
    k.ok(*let_go)
    assert soon(lambda: k("get", "ft/child", "fj/owner", "-o", "name").stdout == "")


def test_kubectl_sees_events_and_core_kinds(k):
    make(k, finetune("a"))
    about = {
        "apiVersion": "datatunerx.io/v1beta1",
        "kind": "Finetune",
        "name": "a",
        "namespace": k.namespace,
        "uid": value(k, "a", "{.metadata.uid}"),
    }
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "a."},
        "involvedObject": about,
        "reason": "Tried",
        "message": "hello there",
        "type": "Normal",
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
        "source": {"component": "test"},
    }
    make(k, event)
    assert "hello there" in k.ok("get", "events")
    assert "hello there" in k.ok("events", "--for", "finetune/a")
    assert "No events" in k.ok("events", "--for", "finetune/b")
    assert re.search("Tried .*hello there", k.ok("describe", "ft", "a"))
    assert "hello there" in k.ok("get", "events.v1.events.k8s.io", "-o", "yaml")
    k.ok("create", "serviceaccount", "robot")
    k.ok("create", "secret", "generic", "s", "--from-literal=k=v")
    assert value(k, "s", "{.data.k} {.type}", "secret") == "dg== Opaque"
    plain = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "p"},
        "stringData": {"k": "v"},
    }
    make(k, plain)
    assert value(k, "p", "{.data.k}{.stringData}", "secret") == "dg=="
    k.ok("create", "configmap", "c", "--from-literal=k=v")
    assert value(k, "c", "{.data.k}", "cm") == "v"


def test_kubectl_follows_a_log(k, tmp_path):
    log, before = tmp_path / "run.log", tmp_path / "before.log"
    log.write_text("2026-01-01T00:00:00Z first\nsecond\n")
    before.write_text("an earlier attempt\n")
    make(
        k,
        {
            "apiVersion": "datatunerx.io/v1beta1",
            "kind": "Run",
            "metadata": {"name": "r"},
            "spec": {"type": "tune", "planId": "p", "planUri": "file:///plan.json"},
        },
    )
    assert "waiting to start" in k.refused("logs", "r")
    status = {"phase": "Running", "logUri": log.as_uri()}
    patch = ("patch", "run", "r", "--subresource=status", "--type=merge", "-p")
    k.ok(*patch, json.dumps({"status": status}))
    assert k.ok("logs", "r") == log.read_text()
    assert k.ok("logs", "r", "--tail=1") == "second\n"
    assert k.ok("logs", "r", "--timestamps").splitlines()[1] == "2026-01-01T00:00:00Z second"
    assert "not found" in k.refused("logs", "r", "--previous")
    k.ok(*patch, json.dumps({"status": {"previousLogUri": before.as_uri()}}))
    assert k.ok("logs", "r", "--previous") == "an earlier attempt\n"
    program = [k.program, "-n", k.namespace, "logs", "-f", "r", "--since=1h"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=k.server.env) as follow:
        with log.open("a") as file:
            file.write(time.strftime("%Y-%m-%dT%H:%M:%SZ third\n", time.gmtime()))
        # whatever it has read by then: once the run has ended, it reads on to the end
        k.ok(*patch, '{"status":{"phase":"Succeeded"}}')
        assert follow.communicate(timeout=60)[0].splitlines()[-1].endswith("third")
    assert "read-only" in k.refused("delete", "pod", "r") or "only show" in k.refused("delete", "pod", "r")


@pytest.mark.parametrize("minor", MINORS[::6])
def test_our_own_crds_are_what_the_server_has_already(kubectl_of_minor, minor):
    crds = subprocess.run([sys.executable, "-m", "datatunerx.cli", "crds"], capture_output=True, check=True)
    k = kubectl_of_minor(minor)
    told = k.ok("apply", "--server-side", "-f", "-", stdin=crds.stdout.decode())
    assert told.count("serverside-applied") == 12
    # a key like n, which YAML of old takes for a boolean, has come through as it is
    path = "{.spec.versions[0].schema.openAPIV3Schema.properties.status.properties.metrics}"
    metrics = json.loads(k.ok("get", "crd", "scorings.datatunerx.io", "-o", f"jsonpath={path}"))
    assert "n" in metrics["additionalProperties"]["properties"]
