"""Models beside each other: who is meant, what is asked, what is shown around a vote, what is kept."""

import json
import re

import pytest
from aiohttp import web

from datatunerx.client.api import Plural
from datatunerx.client.comparisons import CONFIG_MAPS, Comparison, read
from datatunerx.console.comparing import marks, rounds
from datatunerx.console.kinds import PLURALS
from datatunerx.runs import Event, EventType, ServingState
from datatunerx.runs.files import EVENTS, TOKEN
from datatunerx.telemetry.events import encode

SERVICES = Plural("datatunerx.io", "v1beta1", "inferenceservices")
RUNS = Plural("datatunerx.io", "v1beta1", "runs")
BASE, R8, R16 = "smollm2", "support-tickets-r8-lr1e-3", "support-tickets-r16-lr1e-3"
EVIL = '<img src=x onerror="alert(1)">'
PLAN = "ab" * 10


# What is asked and kept


def asked(**changes):
    form = {"question": "Why?", "seed": "3"} | changes
    return rounds.asked_of(form, [BASE, R8, R16])


def answered(round, **texts):
    events = {name: {"answer": {"text": text}} for name, text in texts.items()}
    return rounds.answered(round, events)


def test_words_that_differ_are_marked_and_all_of_the_new_text_is_there():
    found = marks.pieces("the card is blocked", "the card was blocked today")
    assert [(p.how, p.text) for p in found if p.how != "same"] == [
        ("gone", "is"),
        ("new", "was"),
        ("new", " today"),
    ]
    assert "".join(p.text for p in found if p.how != "gone") == "the card was blocked today"
    other = marks.pieces("I would be happy to help you with that", '{"topic": "billing"}')
    assert {p.how for p in other} <= {"same", "new"}
    chinese = marks.pieces("我要退款", "我要换货")
    assert [(p.how, p.text) for p in chinese] == [("same", "我要"), ("gone", "退款"), ("new", "换货")]


def test_who_remembers_is_told_its_own_answers_and_nobody_elses():
    first = answered(rounds.begin(asked(), []), **{BASE: "no", R8: "yes"})
    second = rounds.begin(asked(question="And?", remember="on"), [first])
    said = {
        a["model"]: [m["content"] for m in a.get("messages", second["messages"])] for a in second["answers"]
    }
    assert said == {BASE: ["Why?", "no", "And?"], R8: ["Why?", "yes", "And?"], R16: ["And?"]}
    assert [names for _, names in rounds.groups(second)] == [[BASE], [R8], [R16]]
    assert [names for _, names in rounds.groups(first)] == [[BASE, R8, R16]]


def test_a_field_that_cannot_be_is_named():
    for changes, named in (({"question": " "}, "question"), ({"temperature": "3"}, "temperature")):
        with pytest.raises(ValueError, match=named):
            asked(**changes)


def test_a_blind_vote_stands_and_is_counted():
    round = answered(rounds.begin(asked(blind="on", remember="on"), []), **{BASE: "a", R8: "b", R16: "c"})
    assert rounds.hidden(round) and not any("messages" in a for a in round["answers"])
    [voted] = rounds.voted([round], round["id"], 1)
    assert voted["vote"] == round["answers"][1]["model"] and not rounds.hidden(voted)
    with pytest.raises(ValueError, match="stands"):
        rounds.voted([voted], round["id"], 0)
    assert dict(rounds.tally([voted], [BASE, R8, R16]))[voted["vote"]] == 1
    kept = rounds.merged(None, [BASE, R8, R16], [voted], "2026-11-22T00:00:00Z")
    again = rounds.merged(kept, [BASE, R8, R16], [round], "2026-11-23T00:00:00Z")
    assert [q["vote"] for q in again.questions] == [voted["vote"]]


# Pages


async def test_names_of_any_kind_become_columns_and_what_means_nothing_is_said(filled):
    page = await filled.get(f"compare?models={BASE},fj/{R8},ckpt/{R16},nobody")
    titles = re.findall(r'aria-label="Take ([^"]+) out"', page)
    assert titles == [BASE, R8, R16]
    assert "nobody" in page and "There is no model, job, experiment or service of this name" in page
    page = await filled.get("compare?models=fe/support-tickets")
    assert len(re.findall(r'aria-label="Take', page)) == 5
    page = await filled.get("compare?models=fj/faq-zh-qwen-b,smollm2")
    assert "no checkpoint yet: Training" in page


async def test_ticked_rows_become_a_url_that_can_be_shared(filled):
    answer = await filled.http.get(
        f"/console/ns/default/compare?target=fj/{R8}&target=fj/{R16}", headers={"hx-request": "true"}
    )
    assert answer.headers["hx-redirect"].endswith(f"compare?models=fj%2F{R8}%2Cfj%2F{R16}")


async def test_settings_show_what_differs_and_only_that(filled):
    page = await filled.get(f"compare?models={BASE},{R8},{R16}&tab=settings")
    assert re.findall(r"<th scope=\"row\"><code>([^<]+)", page)[:2] == ["lora.rank", "field-accuracy"]
    assert "settings are the same and not shown" in page


async def test_a_viewer_may_look_and_has_no_composer(filled):
    assert "data-ask" in await filled.get(f"compare?models={BASE},{R8}")
    await filled.login("v" * 40)
    page = await filled.get(f"compare?models={BASE},{R8}")
    assert "data-ask" not in page and "/compare/keep" not in page and "You may look" in page
    await filled.post("compare/ask", {"models": BASE, "question": "Why?"}, code=400)


# Answers: the worker is a real endpoint on loopback


@pytest.fixture
async def worker():
    """Says who it is and how many messages it was told; who is called evil says so in HTML."""

    async def answer(request):
        asked = json.loads(await request.read())
        out = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await out.prepare(request)
        said = f"I am {asked['model']}, told {len(asked['messages'])}. {EVIL}"
        for piece in re.findall(r"\S+\s*", said):
            chunk = {"choices": [{"delta": {"content": piece}, "finish_reason": None}]}
            await out.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        facts = {"base": "b" * 64, "adapter": "a" * 64, "template": "t" * 64, "seed": asked["seed"]}
        facts |= {"seconds": 1.25, "tokens": 5, "tokensPerSecond": 4.0}
        last = {"choices": [{"delta": {}, "finish_reason": "stop"}], "datatunerx": facts}
        await out.write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
        return out

    server = web.Application()
    server.router.add_route("POST", "/v1/chat/completions", answer)
    runner = web.AppRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await runner.cleanup()


@pytest.fixture
async def served(filled, worker):
    """A loaded service with the base and two checkpoints."""
    folder = filled.root / "runs" / PLAN
    folder.mkdir(parents=True)
    (folder / EVENTS).write_bytes(encode(Event(type=EventType.SERVING, serving=ServingState(url=worker))))
    (folder / TOKEN).write_text("worker-token")
    head = {"apiVersion": "datatunerx.io/v1beta1"}
    spec = {"type": "serve", "planId": PLAN, "planUri": "file:///plan.json"}
    await filled.api.create_raw(RUNS, head | {"kind": "Run", "metadata": {"name": "s"}, "spec": spec})
    await filled.api.patch_status(RUNS, "s", {"status": {"phase": "Running"}})
    models = [{"kind": "LLM", "name": BASE}, {"kind": "LLMCheckpoint", "name": R8}]
    models.append({"kind": "LLMCheckpoint", "name": R16})
    body = head | {"kind": "InferenceService", "metadata": {"name": "desk"}, "spec": {"models": models}}
    made = await filled.api.create_raw(SERVICES, body)
    status = {
        "phase": "Running",
        "modelsReady": 3,
        "observedGeneration": made["metadata"]["generation"],
        "models": [model | {"ready": True, "run": "s"} for model in models],
        "conditions": [{"type": "Ready", "status": "True", "reason": "Served"}],
    }
    await filled.api.patch_status(SERVICES, "desk", {"status": status})
    await filled.get(f"compare?models={BASE},{R8},{R16}")
    return filled


async def ask(visitor, *sealed, **fields):
    """The events of a question."""
    form = {"models": f"{BASE},{R8},{R16}", "question": "Who?", "seed": "7", "round": list(sealed)} | fields
    answer = await visitor.post("compare/ask", form)
    return [json.loads(line) for line in answer.text.splitlines()]


def sealed_of(html):
    return re.search(r'name="round" value="([^"]+)"', html)[1]


async def test_columns_are_asked_at_once_and_each_answer_says_what_made_it(served):
    first, *between, last = await ask(served)
    assert first["begin"].count("data-text") == 3
    texts = {n: "".join(e["delta"] for e in between if e["column"] == n) for n in range(3)}
    assert [text.split(",")[0] for text in texts.values()] == [f"I am {n}" for n in (BASE, R8, R16)]
    page = last["end"]
    assert EVIL not in page and "&lt;img" in page
    assert (
        page.count("<dt>adapter</dt><dd>aaaaaaaaaaaa</dd>") == 3
        and "1.25 s" in page
        and "4.0 tokens/s" in page
    )
    assert f"<ins>{R8}</ins>" in page and page.count("<dt>seed</dt><dd>7</dd>") == 3
    second = await ask(served, sealed_of(page), remember="on")
    assert second[-1]["end"].count("told 3.") == 3


async def test_nothing_tells_who_is_who_before_a_blind_vote_and_the_vote_is_kept(served):
    *events, last = await ask(served, blind="on")
    for html in (events[0]["begin"], last["end"]):
        shown = re.sub(r'name="round" value="[^"]+"|I am \S+|<[^>]*>', "", html)
        assert not any(name in shown for name in (BASE, R8, R16)) and "series-1" not in html
    assert "adapter" not in last["end"] and "tokens/s" not in last["end"]
    sealed = sealed_of(last["end"])
    round = served.sessions.show(sealed)
    form = {
        "models": f"{BASE},{R8},{R16}",
        "round": sealed,
        "vote": round["id"],
        "place": "2",
        "name": "thursday",
    }
    answer = await served.post("compare/keep", form)
    assert "saved=thursday" in answer.headers["hx-replace-url"]
    assert round["answers"][2]["model"] in answer.text and "Voted blindly." in answer.text
    kept = read(await served.api.get(CONFIG_MAPS, "thursday"))
    assert kept.questions[0]["vote"] == round["answers"][2]["model"] and kept.questions[0]["blind"] is True
    shown = await served.get("compare?saved=thursday")
    assert "voted best" in shown and "Kept as thursday" in shown
    assert "thursday" in await served.get("compare")
    pairs = (await served.get("compare/rows?saved=thursday&as=pairs")).splitlines()
    assert {json.loads(line)["chosen"] for line in pairs} == {round["answers"][2]["text"]} and len(pairs) == 2
    again = served.sessions.hide(round)
    await served.post("compare/keep", form | {"round": again, "place": "0", "name": "tuesday"})
    await served.post("compare/keep", form | {"saved": "thursday", "round": again, "place": "0"})
    assert (
        read(await served.api.get(CONFIG_MAPS, "thursday")).questions[0]["vote"] == kept.questions[0]["vote"]
    )


async def test_a_kept_comparison_becomes_a_dataset_of_what_was_voted_for(filled):
    """The one that is kept as monday has two questions, one of them voted on."""
    assert "compare/dataset?saved=monday" in await filled.get("compare?saved=monday")
    dialog = await filled.get("compare/dataset?saved=monday", headers={"hx-request": "true"})
    assert "what was voted for – 1 rows, 2 pairs" in dialog and 'value="monday"' in dialog
    voted = read(await filled.api.get(CONFIG_MAPS, "monday")).questions[0]
    texts = {answer["model"]: answer["text"] for answer in voted["answers"]}
    for form, name in (("rows", "asked"), ("pairs", "preferred")):
        made = await filled.post(
            "compare/dataset", {"saved": "monday", "as": form, "name": name, "prefer": ""}
        )
        assert made.headers["hx-redirect"].endswith(f"/datasets/{name}")
        spec = (await filled.api.get(PLURALS["Dataset"], name))["spec"]
        ((split, (uri,)),) = spec["subsets"][0]["splits"].items()
        assert split == ("test" if form == "rows" else "train")  # what is scored by is not trained on
        file = filled.root / "uploads" / uri.removeprefix("upload://")
        found = [json.loads(line) for line in file.read_text().splitlines()]
        if form == "rows":
            assert found[0]["messages"][-1] == {"role": "assistant", "content": texts[voted["vote"]]}
        else:
            assert [row["chosen"] for row in found] == [texts[voted["vote"]]] * 2
            assert {row["rejected"] for row in found} == set(texts.values()) - {texts[voted["vote"]]}
    fields = {"saved": "monday", "as": "rows", "prefer": ""}
    assert (
        "already exists" in (await filled.post("compare/dataset", fields | {"name": "asked"}, code=409)).text
    )
    assert "name" in (await filled.post("compare/dataset", fields | {"name": "No Good"}, code=422)).text
    await filled.post("compare/dataset", fields | {"name": "x", "prefer": "nobody"}, code=400)
    before = sorted((filled.root / "uploads").rglob("*"))
    await filled.login("v" * 40)
    assert "compare/dataset" not in await filled.get("compare?saved=monday")
    await filled.post("compare/dataset", fields | {"name": "y"}, code=403)
    assert sorted((filled.root / "uploads").rglob("*")) == before


async def test_what_is_asked_on_a_kept_page_is_kept_and_a_name_that_is_taken_is_refused(served):
    *_, last = await ask(served)
    form = {"models": f"{BASE},{R8},{R16}", "round": sealed_of(last["end"]), "name": "tuesday"}
    await served.post("compare/keep", form)
    await ask(served, saved="tuesday")
    assert len(read(await served.api.get(CONFIG_MAPS, "tuesday")).questions) == 2
    answer = await served.post("compare/keep", form, code=400)
    assert "kept already" in answer.text
    await served.post("compare/keep", form | {"round": "forged", "name": "x"}, code=400)
    await served.post("compare/forget?saved=tuesday", {})
    assert "tuesday" not in await served.get("compare")


async def test_without_a_service_one_is_made_and_what_it_waits_for_is_said(filled):
    from datatunerx.console.comparing import asking
    from datatunerx.resources.outcome import ModelRef

    models = [ModelRef(kind="LLM", name=BASE), ModelRef(name=R8)]
    assert await asking.service_for(filled.api, models[:1], "default") == "try-tickets"
    assert await asking.service_for(filled.api, models, "default") == asking.OWN
    await filled.api.patch_status(SERVICES, asking.OWN, {"status": {"modelsReady": 2}})
    third = R16.replace("lr1e", "lr2e")
    await asking.service_for(filled.api, [ModelRef(name=third)], "default")
    names = [m["name"] for m in (await filled.api.get(SERVICES, asking.OWN))["spec"]["models"]]
    assert names == [BASE, R8, third]
    await filled.api.patch_status(SERVICES, asking.OWN, {"status": {"modelsReady": 0}})
    await asking.service_for(filled.api, [models[0], ModelRef(name="new")], "default")
    names = [m["name"] for m in (await filled.api.get(SERVICES, asking.OWN))["spec"]["models"]]
    assert names == [BASE, "new"]


def test_a_comparison_of_the_command_line_can_be_looked_at_too():
    one = Comparison(
        models=["a"], created="x", questions=[{"messages": [{"content": "?"}], "answers": []}, {}]
    )
    assert [rounds.whole(each) is not None for each in one.questions] == [True, False]
