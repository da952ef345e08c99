"""Who may name which files of the server's machine: its owner all, others what the owner opened."""

import pytest

from datatunerx.resources.crds import crd_manifests
from datatunerx.server.app import create_app

PATH = "/apis/datatunerx.io/v1beta1/namespaces/team"
MARK = "datatunerx.io/confined"
MERGE = "application/merge-patch+json"


@pytest.fixture
def opened(tmp_path):
    folder = tmp_path / "opened"
    folder.mkdir()
    return folder


@pytest.fixture
async def app(state, opened):
    app = create_app(state.store, crd_manifests(), tokens=state.tokens, allow_paths=[opened])
    await app.start()
    yield app
    await app.stop()
    await state.store.close()


def body(kind, name, spec, **meta):
    head = {"apiVersion": "datatunerx.io/v1beta1", "kind": kind}
    return head | {"metadata": {"name": name} | meta, "spec": spec}


def llm(source, name="m", **meta):
    return body("LLM", name, {"source": source}, **meta)


def dataset(*uris, name="d"):
    return body("Dataset", name, {"subsets": [{"splits": {"train": list(uris)}}]})


def marked(answer):
    return MARK in answer.ok()["metadata"].get("annotations", {})


async def test_the_owner_may_name_any_file_and_others_what_was_opened(api, caller, opened):
    editor = await caller("editor")
    assert not marked(await api.post(f"{PATH}/llms", llm("file:///home/me/model", "a")))
    assert marked(await editor("POST", f"{PATH}/llms", llm(f"file://{opened}/model", "b")))
    assert marked(await editor("POST", f"{PATH}/datasets", dataset(f"{opened}/*.jsonl", "hf://a/b")))
    assert not marked(await editor("POST", f"{PATH}/llms", llm("hf://org/name", "c")))


@pytest.mark.parametrize(
    "source",
    [
        "file:///home/me/model", "/etc/passwd", "file:///", "{opened}/../secret", "file://{opened}/%2e%2e/secret",
        "{opened}-not/model", "~/model", "file:/etc/passwd", "FILE:///etc/passwd", "{opened}/link/secret",
    ],
)  # fmt: skip
@pytest.mark.parametrize("role", ["editor", "admin"])
async def test_other_places_are_refused_by_name_however_they_are_written(caller, opened, source, role):
    (opened / "link").symlink_to("/etc")
    source = source.format(opened=opened)
    call = await caller(role)
    for path, body in ((f"{PATH}/llms", llm(source)), (f"{PATH}/datasets", dataset("hf://a/b", source))):
        got = await call("POST", path, body)
        assert got.status in (403, 422), got.body
        if got.status == 403:
            field = "spec.source" if path.endswith("llms") else "spec.subsets[0].splits.train[1]"
            assert field in got.json["message"] and "--allow-path" in got.json["message"]


async def test_an_object_of_the_owner_is_no_way_around(api, caller):
    editor = await caller("editor")
    (await api.post(f"{PATH}/datasets", dataset("file:///home/me/a.jsonl"))).ok()
    tagged = await editor("PATCH", f"{PATH}/datasets/d", {"spec": {"tags": ["x"]}}, **{"content-type": MERGE})
    assert not marked(tagged)  # its files are as the owner named them
    other = {"spec": {"subsets": [{"splits": {"train": ["file:///home/me/b.jsonl"]}}]}}
    got = await editor("PATCH", f"{PATH}/datasets/d", other, **{"content-type": MERGE})
    assert got.status == 403


async def test_nobody_takes_the_mark_off_but_by_naming_other_files(api, caller, opened):
    editor = await caller("editor")
    (await editor("POST", f"{PATH}/llms", llm(f"{opened}/m"))).ok()
    bare = {"metadata": {"annotations": {MARK: None}}}
    assert marked(await editor("PATCH", f"{PATH}/llms/m", bare, **{"content-type": MERGE}))
    assert marked(await api.patch(f"{PATH}/llms/m", bare))
    forged = await editor("POST", f"{PATH}/llms", llm("hf://a/b", "n", annotations={MARK: "true"}))
    assert not marked(forged)


async def test_programs_are_the_owners_to_name(api, caller):
    editor = await caller("editor")
    for number, spec in enumerate(({"provider": "command", "command": ["sh"]}, {"entryPoint": "os:system"})):
        plugin = body("DataPlugin", f"p{number}", spec)
        got = await editor("POST", f"{PATH}/dataplugins", plugin)
        assert got.status == 403 and "rights of the server's account" in got.json["message"]
        (await api.post(f"{PATH}/dataplugins", plugin)).ok()
    named = body("ScoringPlugin", "named", {"entryPoint": "scrub"})
    (await editor("POST", f"{PATH}/scoringplugins", named)).ok()


async def test_a_checkpoint_is_exported_to_opened_folders_only(api, caller, opened):
    spec = {"finetune": "f", "llm": "l", "dataset": "d", "uri": "file:///data/c", "step": 1}
    (await api.post(f"{PATH}/llmcheckpoints", body("LLMCheckpoint", "c", spec))).ok()
    editor = await caller("editor")

    async def export(uri):
        entry = {"name": "x", "to": "hf"} | ({"uri": uri} if uri else {})
        wanted = {"spec": {"exports": [entry]}}
        return await editor("PATCH", f"{PATH}/llmcheckpoints/c", wanted, **{"content-type": MERGE})

    assert (await export("file:///home/me/.ssh/x")).status == 403
    assert (await export(None)).status == 200 and (await export(f"file://{opened}/x")).status == 200
    moved = await editor(
        "PATCH", f"{PATH}/llmcheckpoints/c", {"spec": {"uri": "file:///x"}}, **{"content-type": MERGE}
    )
    assert moved.status == 422 and "uri is immutable" in moved.body.decode()
