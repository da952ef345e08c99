"""Sample answers against the base; and what is done with a model: served, exported, taken out again."""

import io
import re
import tarfile

from datatunerx.client.api import Plural
from datatunerx.console import samples

SERVICES = Plural("datatunerx.io", "v1beta1", "inferenceservices")
CHECKPOINTS = Plural("datatunerx.io", "v1beta1", "llmcheckpoints")
BEST, OTHER = "support-tickets-r8-lr2e-3", "support-tickets-r8-lr1e-3"


def told(**answers):
    return {
        "samples": [
            {"step": int(step[1:]), "prompt": "Hi?", "answer": text} for step, text in answers.items()
        ]
    }


def texts(pieces):
    return [(piece.how, piece.text) for piece in pieces]


def test_each_checkpoint_is_held_against_step_0_of_its_own_job():
    seen = {"a": told(s0="hello you", s2="hello me", s4="hello you"), "b": told(s0="hello you", s4="bye")}
    [grid] = samples.grids(seen, {"a": "base", "b": "base"}, last=False)
    assert grid.bases == [("base", "hello you")] and grid.steps == [2, 4]
    first, second = grid.rows
    assert texts(first.answers[0]) == [("same", "hello "), ("gone", "you"), ("new", "me")]
    assert texts(first.answers[1]) == [("same", "hello you")]
    assert second.answers[0] is None and texts(second.answers[1]) == [("new", "bye")]


def test_the_last_answers_stand_in_one_column_whatever_their_steps():
    seen = {"a": told(s0="x", s2="y", s4="z"), "b": told(s0="x", s3="w"), "c": told(s0="x")}
    [grid] = samples.grids(seen, dict.fromkeys(seen, "base"), last=True)
    assert grid.steps == [-1]
    assert [row.answers[0] and row.answers[0][-1].text for row in grid.rows] == ["z", "w", None]


async def test_an_experiment_shows_prompts_by_checkpoints_and_marks_what_the_base_does_not_say(filled):
    page = await filled.get("experiments/support-tickets?tab=samples")
    assert page.count('class="card flush sample"') == 2 and "<ins>" in page
    assert len(re.findall(r'<th scope="row">.*?untouched base', page)) == 2
    assert len(re.findall(r"<th scope=\"col\">Step \d+", await filled.get(
        "experiments/support-tickets?tab=samples&steps=all"
    ))) == 4  # fmt: skip
    page = await filled.get("jobs/faq-zh-qwen-b?tab=samples")
    assert "&lt;script&gt;" in page and "<script>document" not in page


async def test_a_model_is_served_by_a_new_service_or_by_one_that_is_there(filled):
    asked = await filled.get(f"serve?model=ckpt/{OTHER}")
    assert f'value="{OTHER}"' in asked and "try-tickets" in asked and "kind: InferenceService" in asked
    await filled.get("services")
    answer = await filled.post("serve", {"model": f"ckpt/{OTHER}", "name": "desk", "idle": "2"})
    assert answer.headers["hx-redirect"].endswith("/services/desk")
    made = (await filled.api.get(SERVICES, "desk"))["spec"]
    assert made["models"] == [{"kind": "LLMCheckpoint", "name": OTHER}] and made["idleSeconds"] == 120
    await filled.post("serve", {"model": "llm/smollm2", "into": "desk"})
    names = [model["name"] for model in (await filled.api.get(SERVICES, "desk"))["spec"]["models"]]
    assert names == [OTHER, "smollm2"]
    answer = await filled.post("serve", {"model": "llm/smollm2", "name": "desk"}, code=409)
    assert "already exists" in answer.text
    await filled.post("services/desk/out?model=llm/smollm2", {})
    await filled.post(f"services/desk/out?model=ckpt/{OTHER}", {}, code=400)  # it is the last one
    await filled.post("serve", {"model": "ds/support-tickets", "name": "x"}, code=400)


async def test_a_service_says_who_is_loaded_and_where_it_is(filled):
    page = await filled.get("services/try-tickets")
    assert "inferenceservices/try-tickets/proxy/v1" in page and "2 of 3" in page
    assert "Loading: its adapter is being loaded" in page and page.count("/out?model=") == 3
    assert "10 min" in await filled.get("services")


async def test_an_export_is_written_into_the_checkpoint_and_what_cannot_be_is_refused(filled):
    await filled.get("models")
    where = f"exports/{BEST}"
    for fields in ({"to": "zip"}, {"to": "hf", "type": "q8_0"}, {"to": "gguf", "output": "home/me"}):
        await filled.post(where, {"type": "auto"} | fields, code=400)
    form = {"to": "gguf", "type": "q8_0", "output": "/home/me/a b", "secret": ""}
    answer = await filled.post(where, form)
    assert answer.headers["hx-redirect"].endswith(f"/models/ckpt/{BEST}")
    asked = (await filled.api.get(CHECKPOINTS, BEST))["spec"]["exports"]
    assert [each["name"] for each in asked] == ["gguf-q8-0", "hf", "gguf-q8-0-2"]
    assert asked[-1] == {
        "name": "gguf-q8-0-2",
        "to": "gguf",
        "type": "q8_0",
        "uri": "file:///home/me/a%20b",
        "plainHttp": False,
    }
    page = await filled.get(f"models/ckpt/{BEST}")
    assert "20 of 20 answers are those of base and adapter" in page and "llama-cli -cnv -m" in page
    assert "the disk is full &lt;script" in page


async def test_an_export_is_downloaded_by_who_may_whole_by_range_and_as_a_tar(filled, monkeypatch):
    monkeypatch.setattr("datatunerx.console.pages.exports.PART_BYTES", 1000)
    uid = (await filled.api.get(CHECKPOINTS, BEST))["metadata"]["uid"]
    hf = filled.root / "exports" / uid / "hf"
    hf.mkdir(parents=True)
    weights = bytes(range(256)) * 41
    (hf / "model.safetensors").write_bytes(weights)
    (hf / "<b>.txt").write_text("x")
    await filled.api.patch(CHECKPOINTS, BEST, {"spec": {"exports": [{"name": "hf", "to": "hf"}]}})
    there = {
        "name": "hf",
        "phase": "Succeeded",
        "outcome": {"uri": f"file://{hf}", "digest": "e5", "bytes": 1},
    }
    await filled.api.patch_status(CHECKPOINTS, BEST, {"status": {"exports": [there]}})
    assert f"/exports/{BEST}/hf/download" in await filled.get(f"models/ckpt/{BEST}")
    listed = await filled.get(f"exports/{BEST}/hf", headers={"hx-request": "true"})
    assert "&lt;b&gt;.txt" in listed and f"dtx pull {BEST} hf" in listed

    url = f"/console/ns/default/exports/{BEST}/hf/download"
    whole = await filled.http.get(f"{url}?path=model.safetensors")
    assert whole.content == weights and whole.headers["content-length"] == str(len(weights))
    assert whole.headers["content-disposition"] == "attachment; filename*=UTF-8''model.safetensors"
    first = await filled.http.head(f"{url}?path=model.safetensors")
    assert first.content == b"" and first.headers["content-length"] == str(len(weights))
    again = {"range": "bytes=1234-", "if-range": whole.headers["etag"]}
    rest = await filled.http.get(f"{url}?path=model.safetensors", headers=again)
    assert rest.status_code == 206 and rest.content == weights[1234:]
    packed = await filled.http.get(url)
    with tarfile.open(fileobj=io.BytesIO(packed.content), mode="r:") as tar:
        assert tar.extractfile(f"{BEST}-hf/model.safetensors").read() == weights
    for path in ("../../../db/objects.db", "/etc/passwd"):
        assert (await filled.http.get(url, params={"path": path})).status_code == 404

    await filled.login("v" * 40)
    assert (await filled.http.get(url)).status_code == 403
    assert (await filled.http.get(f"{url}?path=model.safetensors")).status_code == 403


async def test_a_viewer_is_offered_none_of_it(filled):
    paths = (f"models/ckpt/{BEST}", f"jobs/{BEST}", "services/try-tickets", "models/llm/smollm2")
    offers = ("/serve?", "/exports/", "do=stop", "/out?", "/edit?", ">Chat<", "Ask its models")
    there = [[offer for offer in offers if offer in await filled.get(path)] for path in paths]
    assert all(there)
    await filled.login("v" * 40)
    for path in paths:
        page = await filled.get(path)
        assert [offer for offer in offers if offer in page] == []
    await filled.post("serve", {"model": "llm/smollm2", "name": "x"}, code=403)
    await filled.post(f"exports/{BEST}", {"to": "hf"}, code=403)
