"""The wizard over the real API: what is typed stays, what is wrong is told, what starts is what was shown."""

import asyncio
import html
import re

import pytest
import yaml

from datatunerx.console.host import Host
from datatunerx.console.kinds import PLURALS
from datatunerx.console.wizard import draft as drafts
from datatunerx.console.wizard import making
from datatunerx.console.wizard.draft import Draft
from datatunerx.console.wizard.outlook import World, outlook
from datatunerx.resources.enums import Precision

HOST = Host(0, 1, 8 << 30, 50 << 30, Precision.FLOAT32)


async def begun(console, name="first", **fields):
    """A draft at its second step; its path below the namespace."""
    await console.get("new")
    answer = await console.post("new", {"name": name, "do": "next", "namespace": "default"} | fields)
    return answer.headers["hx-redirect"].partition("/ns/default/")[2].rpartition("/")[0]


async def ready(console, name="first"):
    """A draft with a model and data that were inspected."""
    path = await begun(console, name)
    await console.post(
        f"{path}/2", {"method": "lora", "llm": "smollm2", "dataset": "support-tickets", "do": "next"}
    )
    return path


async def test_an_empty_workspace_leads_to_the_wizard_and_the_wizard_to_a_draft(console):
    await console.login()
    assert "/console/ns/default/new" in await console.get("experiments")
    page = await console.get("new")
    assert 'name="name"' in page and "Where things go" in page
    path = await begun(console, "my-first-model")
    assert re.fullmatch(r"new/draft-[0-9a-f]{8}", path)
    page = await console.get(f"{path}/2")
    assert "my-first-model" in page and "There is no dataset here yet" in page


async def test_a_name_that_cannot_be_is_told_at_its_field(filled):
    await filled.get("new")
    for name, told in (
        ("", "Give it a name."),
        ("My Model", "Only small letters, digits and dashes"),
        ("support-tickets", "There is an experiment of this name already."),
        ("x" * 201, "At most 200 letters."),
    ):
        answer = await filled.post("new", {"name": name, "do": "next"})
        fault = re.search(r'id="fault-name"[^>]*>([^<]*)<', answer.text)
        assert fault and told in fault[1], name
    assert await drafts.unfinished(filled.api, "default", "ada") == ([], [])


async def test_what_was_typed_is_there_when_one_comes_back_and_the_list_leads_there(filled):
    path = await ready(filled)
    await filled.post(
        f"{path}/3", {"v:lora.rank": "4, 8", "shown:lora.rank": "", "v:epochs": "1x", "shown:epochs": ""}
    )
    listed = await filled.get("experiments")
    assert f'href="/console/ns/default/{path}/3"' in listed and "step 3 of 6" in listed
    page = await filled.get(f"{path}/3")
    assert 'value="4, 8"' in page and 'value="1x"' in page and "1x is not a number" in page
    assert "A parameter is wrong" in page  # on the card, which has no figures of it
    answer = await filled.post(
        f"{path}/3", {"v:lora.rank": "4, 8", "shown:lora.rank": "", "shown:epochs": "", "do": "leave"}
    )
    assert answer.headers["hx-redirect"].endswith("/experiments")
    assert 'value="1x"' not in await filled.get(f"{path}/3")


async def test_many_jobs_to_come_are_shown_page_by_page(filled):
    path = await ready(filled)
    await filled.post(
        f"{path}/3",
        {"v:lora.rank": ", ".join(map(str, range(1, 65))), "shown:lora.rank": "", "v:maxSteps": "4",
         "shown:maxSteps": "", "do": "next"},
    )  # fmt: skip
    page = await filled.get(f"{path}/4")
    assert "1 to 50 of 64" in page and "Start 64 jobs" in page
    assert page.count('<td class="name">') == 50
    assert (await filled.get(f"{path}/4?page=2")).count('<td class="name">') == 14


async def test_a_value_that_is_not_shown_is_kept_for_when_it_matters_again(filled):
    path = await ready(filled)
    await filled.post(f"{path}/3", {"v:beta1": "0.8", "shown:beta1": "", "shown:optimizer": ""})
    await filled.post(f"{path}/3", {"v:optimizer": "sgd", "shown:optimizer": "", "do": "next"})
    assert "beta1:" not in await filled.get(f"{path}/4")
    kept = await drafts.load(filled.api, path.partition("/")[2], "default")
    assert kept.draft.values["beta1"] == ["0.8"]


async def test_a_wrong_value_keeps_one_at_its_step_in_ones_own_language(filled):
    path = await ready(filled)
    filled.http.cookies.set("dtx-language", "zh")
    answer = await filled.post(f"{path}/3", {"v:lora.rank": "0", "shown:lora.rank": "", "do": "next"})
    assert "hx-redirect" not in answer.headers
    assert "0 超出范围：1 至 1,024" in answer.text
    many = {
        "v:lora.rank": "1,2,3,4,5,6,7,8,9",
        "v:seed": "1,2,3,4,5,6,7,8",
        "shown:lora.rank": "",
        "shown:seed": "",
    }
    answer = await filled.post(f"{path}/3", many | {"do": "next"})
    assert "hx-redirect" not in answer.headers and "72" in answer.text


async def test_model_and_data_must_be_chosen_and_usable(filled):
    path = await begun(filled)
    answer = await filled.post(f"{path}/2", {"do": "next"})
    assert "Choose a model." in answer.text and "Choose data." in answer.text
    answer = await filled.post(f"{path}/2", {"llm": "smollm2", "dataset": "contracts", "do": "next"})
    assert "hx-redirect" not in answer.headers and "no such file" in answer.text


async def test_a_model_that_is_named_is_registered_and_looked_at(filled):
    path = await begun(filled)
    answer = await filled.post(f"{path}/2", {"source": "nonsense", "do": "check-model"})
    assert "Write a path on the server" in answer.text
    await filled.post(f"{path}/2", {"source": "org/tiny", "do": "check-model"})
    kept = await drafts.load(filled.api, path.partition("/")[2], "default")
    made = await filled.api.get(PLURALS["LLM"], kept.draft.llms[0])
    assert made["spec"]["source"] == "hf://org/tiny" and kept.draft.source == ""
    page = await filled.get(f"{path}/2")
    assert "The model is looked at" in page
    await filled.post(f"{path}/2", {"llm": "smollm2"})
    page = await filled.get(f"{path}/2")
    assert "LlamaForCausalLM" in page and "tokenizer_config.json" in page


async def test_what_starts_is_what_was_shown(filled):
    path = await ready(filled, "second")
    fields = {"v:lora.rank": "4, 8", "v:maxSteps": "12", "v:samples": "Say hello.\nSay goodbye."}
    await filled.post(f"{path}/3", fields | {f"shown:{key[2:]}": "" for key in fields} | {"do": "next"})
    page = await filled.get(f"{path}/4")
    shown = list(
        yaml.safe_load_all(html.unescape(re.search(r"<pre[^>]*>(apiVersion.*?)</pre>", page, re.S)[1]))
    )
    answer = await filled.post(f"{path}/4", {"do": "start"})
    assert answer.headers["hx-redirect"].endswith(f"{path}/4"), answer.text
    for body in shown:
        made = await filled.api.get(PLURALS[body["kind"]], body["metadata"]["name"])
        for key, value in body["spec"].items():
            assert made["spec"][key] == value or value.items() <= made["spec"][key].items()
    assert [each["kind"] for each in shown] == ["Hyperparameter"] * 3 + ["FinetuneExperiment"]
    assert (
        "second"
        not in (await filled.get("experiments")).partition("Drafts to go on with")[2].partition("</nav>")[0]
    )
    await filled.get(f"{path}/5")
    assert "It was started with these" in await filled.get(f"{path}/3")
    again = await filled.post(f"{path}/again", {})
    copy = await drafts.load(filled.api, again.headers["hx-redirect"].split("/")[-2], "default")
    assert copy.draft.values["lora.rank"] == ["4, 8"] and not copy.draft.experiment


async def test_yaml_by_hand_takes_the_place_of_the_fields(filled):
    path = await ready(filled, "by-hand")
    await filled.post(f"{path}/3", {"do": "yaml-edit"})
    answer = await filled.post(f"{path}/3", {"yaml": "kind: FinetuneExperiment\nspec: [", "do": "next"})
    assert "hx-redirect" not in answer.headers and "2: not YAML" in answer.text
    answer = await filled.post(
        f"{path}/3", {"yaml": "kind: Secret\napiVersion: v1\nmetadata: {name: x}", "do": "next"}
    )
    assert "Secret: expected kind Hyperparameter or FinetuneExperiment" in answer.text
    kept = await drafts.load(filled.api, path.partition("/")[2], "default")
    good = kept.draft.model_copy(update={"yaml": None})
    text = yaml.safe_dump_all(making.objects(good)).replace("name: by-hand", "name: by-hand-2")
    await filled.post(f"{path}/3", {"yaml": text, "do": "next"})
    await filled.post(f"{path}/4", {"do": "start"})
    assert (await filled.api.get(PLURALS["FinetuneExperiment"], "by-hand-2"))["spec"]["matrix"]["llms"] == [
        "smollm2"
    ]


async def test_a_draft_is_its_authors_and_a_viewer_makes_none(filled):
    await ready(filled, "mine")
    assert "mine" in await filled.get("experiments")
    await filled.login("v" * 40)
    page = await filled.get("new")
    assert (
        "You cannot start a training here" in page and 'value="next">Next' not in page.partition("</form>")[2]
    )
    assert "Drafts to go on with" not in await filled.get("experiments")
    answer = await filled.post("new", {"name": "theirs", "do": "next"})
    assert "forbidden" in answer.text and "hx-redirect" not in answer.headers


async def test_two_who_write_at_once_are_both_answered(filled):
    path = await ready(filled)
    ranks = [{"v:lora.rank": f"{n}", "shown:lora.rank": ""} for n in (4, 8, 16)]
    answers = await asyncio.gather(*(filled.post(f"{path}/3", typed) for typed in ranks))
    assert all("fault" in answer.text for answer in answers)
    kept = await drafts.load(filled.api, path.partition("/")[2], "default")
    assert kept.draft.values["lora.rank"][0] in ("4", "8", "16")


async def test_what_arrives_late_does_not_undo_a_start_and_the_draft_goes_with_its_experiment(filled):
    path = await ready(filled, "fourth")
    id = path.partition("/")[2]
    late = await drafts.load(filled.api, id, "default")
    await filled.post(f"{path}/4", {"do": "start"})
    await filled.post(f"{path}/3", {"v:lora.rank": "64", "shown:lora.rank": ""}, code=400)
    kept = await drafts.load(filled.api, id, "default")
    assert kept.draft.experiment == "fourth" and kept.version != late.version
    made = await filled.api.get(PLURALS["FinetuneExperiment"], "fourth")
    owners = (await filled.api.get(drafts.CONFIG_MAPS, id))["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == [made["metadata"]["uid"]]


async def test_what_was_stopped_and_kept_is_taken_home_though_nothing_ranks_it(filled):
    stopped = {"phase": "Stopped", "ranking": [], "jobs": {"summary": "3/3", "total": 3, "stopped": 3}}
    await filled.api.patch_status(PLURALS["FinetuneExperiment"], "faq-zh-qwen", {"status": stopped})
    assert "To the results" in await filled.get("new/draft-runs/4")
    page = await filled.get("new/draft-runs/6")
    assert "models=llm%2Fsmollm2%2Cckpt%2Ffaq-zh-qwen-a" in page and "dtx chat faq-zh-qwen-a" in page
    assert "faq-zh-qwen-b" not in page  # it has kept nothing


# What will happen


def llm(**status):
    known = {"parameters": 134_515_008, "digest": "d", "localUri": "file:///m", "template": "{{ x }}"}
    ok = {"conditions": [{"type": "Ready", "status": "True"}]}
    return {
        "kind": "LLM",
        "metadata": {"name": "m"},
        "spec": {"source": "pkg://m/m"},
        "status": known | ok | status,
    }


def data(**report):
    found = {
        "kept": 100, "splits": {"train": 80, "validate": 10, "test": 10},
        "tokens": {"rows": 100, "p50": 40, "p95": 60, "max": 64, "total": 4000, "trained": 900},
        "histogram": [{"upTo": 32, "rows": 40}, {"upTo": 64, "rows": 60}],
    }  # fmt: skip
    spec = {"subsets": [{"splits": {"train": ["file:///x"]}}]}
    ok = {"conditions": [{"type": "Ready", "status": "True"}], "report": found | report}
    return {"kind": "Dataset", "metadata": {"name": "d"}, "spec": spec, "status": ok}


def seen(host=HOST, model=None, rows=None, tunes=(), **values):
    typed = {key.replace("__", "."): [value] for key, value in values.items()}
    draft = Draft(name="e", llms=["m"], datasets=["d"], values=typed)
    world = World({"m": model or llm()}, {"d": rows or data()}, {}, list(tunes))
    return outlook(making.objects(draft), world, host)


async def test_several_models_and_datasets_make_every_combination(filled):
    for kind, name in (("LLM", "smollm2"), ("Dataset", "support-tickets")):
        there = await filled.api.get(PLURALS[kind], name)
        made = {key: there[key] for key in ("apiVersion", "kind", "spec")} | {
            "metadata": {"name": f"{name}-2"}
        }
        await filled.api.create_raw(PLURALS[kind], made)
        await filled.api.patch_status(PLURALS[kind], f"{name}-2", {"status": there["status"]})
    path = await ready(filled, "every")
    page = await filled.get(f"{path}/2")
    assert 'type="checkbox" name="llm"' not in page
    both = {"llm": ["smollm2", "smollm2-2"], "dataset": ["support-tickets", "support-tickets-2"]}
    shown = {"shown:llm": "", "shown:dataset": ""}
    await filled.post(f"{path}/2", both | shown)
    kept = await drafts.load(filled.api, path.partition("/")[2], "default")
    assert kept.draft.llms == ["smollm2"]  # one, until more are asked for
    await filled.post(
        f"{path}/2", shown | {"llm": "smollm2", "dataset": "support-tickets", "do": "several:llm"}
    )
    await filled.post(
        f"{path}/2", shown | {"llm": "smollm2", "dataset": "support-tickets", "do": "several:dataset"}
    )
    page = await filled.get(f"{path}/2")
    assert 'type="checkbox" name="llm" value="smollm2" checked' in page
    answer = await filled.post(f"{path}/2", both | shown)
    assert "2 models × 2 datasets" in answer.text
    await filled.post(f"{path}/2", both | shown | {"do": "next"})
    answer = await filled.post(f"{path}/3", {"v:lora.rank": "4, 8, 16", "shown:lora.rank": ""})
    assert "2 models × 2 datasets × 3 parameter groups" in answer.text
    assert "These choices make 12 jobs" in answer.text
    many = {"v:lora.rank": "4, 8, 16", "v:seed": "1,2,3,4,5,6", "shown:lora.rank": "", "shown:seed": ""}
    answer = await filled.post(f"{path}/3", many | {"do": "next"})
    assert answer.text.count("These choices make 72 jobs; at most 64") == 2  # at the fields and on the card
    await filled.post(f"{path}/3", {"v:lora.rank": "4, 8, 16", "shown:lora.rank": "", "shown:seed": ""})
    assert "Start 12 jobs" in await filled.get(f"{path}/4")
    await filled.post(f"{path}/4", {"do": "start"})
    made = await filled.api.get(PLURALS["FinetuneExperiment"], "every")
    assert made["spec"]["matrix"]["llms"] == both["llm"]
    assert made["spec"]["matrix"]["datasets"] == both["dataset"]


async def test_going_back_to_one_keeps_the_first_and_none_ticked_is_none(filled):
    path = await ready(filled)
    await filled.post(f"{path}/2", {"shown:llm": "", "llm": "smollm2", "do": "several:llm"})
    answer = await filled.post(f"{path}/2", {"shown:llm": "", "do": "next"})
    assert "Choose a model." in answer.text
    await filled.post(f"{path}/2", {"shown:llm": "", "llm": ["gone", "smollm2"]})
    answer = await filled.post(f"{path}/2", {"shown:llm": "", "llm": ["gone", "smollm2"], "do": "next"})
    assert "gone is not there any more." in answer.text
    await filled.post(f"{path}/2", {"shown:llm": "", "llm": ["smollm2", "gone"], "do": "one:llm"})
    kept = await drafts.load(filled.api, path.partition("/")[2], "default")
    assert kept.draft.llms == ["smollm2"] and kept.draft.several == []


async def test_a_checkpoint_becomes_the_next_base_with_its_data(filled):
    best = "support-tickets-r8-lr2e-3"
    for page in (f"models/ckpt/{best}", f"jobs/{best}", "new/draft-done/6"):
        assert f'href="/console/ns/default/new?base={best}"' in await filled.get(page), page
    page = await filled.get(f"new?base={best}")
    assert f'value="{best}-next"' in page and f'name="base" value="{best}"' in page
    fields = {"name": f"{best}-next", "base": best, "do": "next"}
    answer = await filled.post("new", fields | {"name": "No"})
    assert f'name="base" value="{best}"' in answer.text  # a wrong name does not lose it
    answer = await filled.post("new", fields)
    path = answer.headers["hx-redirect"].partition("/ns/default/")[2].rpartition("/")[0]
    made = await filled.api.get(PLURALS["LLM"], best)
    assert made["spec"]["source"] == f"checkpoint://{best}"
    page = await filled.get(f"{path}/2")
    assert f'type="radio" name="llm" value="{best}" checked' in page
    assert 'type="radio" name="dataset" value="support-tickets" checked' in page
    await filled.get("new?base=never-was", code=404)
    ticked = f"new?target=ckpt/{best}"
    assert 'hx-get="/console/ns/default/new"' in await filled.get("models")
    assert 'hx-get="/console/ns/default/new"' not in await filled.get("datasets")
    partial = {"hx-request": "true"}
    answer = await filled.http.get(f"/console/ns/default/{ticked}", headers=partial)
    assert answer.headers["hx-redirect"].endswith(f"/new?base={best}")


async def test_another_model_of_a_checkpoints_name_is_not_taken_for_it(filled):
    best = "support-tickets-r8-lr2e-3"
    head = {"apiVersion": "datatunerx.io/v1beta1", "kind": "LLM", "metadata": {"name": best}}
    await filled.api.create_raw(PLURALS["LLM"], head | {"spec": {"source": "hf://org/other"}})
    await filled.get("new")
    answer = await filled.post("new", {"name": "next", "base": best, "do": "next"})
    assert f"There is another model named {best}." in answer.text
    assert await drafts.unfinished(filled.api, "default", "ada") == ([], [])


async def test_a_draft_that_cannot_be_read_is_listed_and_can_be_discarded(filled):
    labels, notes = {drafts.LABEL: drafts.OPEN}, {drafts.USER: "ada", drafts.CHANGED: "2026-11-01T08:00:00Z"}
    for name, user, text in (("draft-old", "ada", '{"wishes": 3}'), ("draft-theirs", "vera", "{")):
        metadata = {"name": name, "labels": labels, "annotations": notes | {drafts.USER: user}}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {drafts.KEY: text}}
        await filled.api.create_raw(drafts.CONFIG_MAPS, body)
    assert "cannot be read" in await filled.get("experiments")
    page = await filled.get("new")
    assert "Drafts that cannot be read" in page and "draft-old" in page and "draft-theirs" not in page
    assert "written by another version" in await filled.get("new/draft-old/3", code=404)
    await filled.post("new/draft-old/drop", {})
    assert "draft-old" not in await filled.get("new")
    plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "b"}}
    await filled.api.create_raw(drafts.CONFIG_MAPS, plain)
    await filled.post("new/settings/drop", {}, code=404)
    await filled.api.get(drafts.CONFIG_MAPS, "settings")


def test_the_card_tells_steps_tokens_memory_and_disk():
    found = seen(lora__rank="8, 16", epochs="2", batchSize="4", gradientAccumulation="2")
    assert [(job.steps, job.batch, job.tokens) for job in found.jobs] == [(20, 8, 6400)] * 2
    assert found.runs == 1 and found.tokens == 12800 and not found.blocked
    assert 1.5e9 < found.memory < 2.5e9
    assert 100e6 < found.disk < 1e9
    assert found.seconds is None
    more = seen(lora__rank="64", epochs="2", batchSize="4", gradientAccumulation="2")
    assert more.disk > found.disk and more.jobs[0].steps == 20


def test_a_cutoff_makes_rows_shorter():
    whole, cut = seen(cutoffLength="64"), seen(cutoffLength="16")
    assert cut.jobs[0].tokens < whole.jobs[0].tokens / 2


def test_time_is_what_the_last_run_on_the_model_took():
    def tune(name, run, tokens, end):
        status = {"run": run, "startedAt": "2026-11-22T08:00:00Z", "finishedAt": end}
        status["progress"] = {"tokens": tokens}
        return {"metadata": {"name": name}, "spec": {"llm": "m"}, "status": status}

    tunes = [
        tune("old", "r1", 9_999_999, "2026-11-22T08:00:10Z"),
        tune("a", "r2", 3000, "2026-11-22T08:00:50Z"), tune("b", "r2", 7000, "2026-11-22T08:01:40Z"),
    ]  # fmt: skip
    found = seen(tunes=tunes, maxSteps="50", batchSize="5")
    assert found.rate == 100 and found.seconds == 50 * 5 * 40 / 100 and found.measured_on == "r2"


def test_time_of_several_models_is_the_sum_and_unknown_while_one_was_never_trained():
    def tune(llm, run, tokens):
        ends = {"startedAt": "2026-11-22T08:00:00Z", "finishedAt": "2026-11-22T08:00:10Z"}
        status = ends | {"run": run, "progress": {"tokens": tokens}}
        return {"metadata": {"name": run}, "spec": {"llm": llm}, "status": status}

    draft = Draft(name="e", llms=["m", "n"], datasets=["d"], values={"maxSteps": ["50"], "batchSize": ["5"]})
    models = {"m": llm(), "n": llm(digest="e")}
    tunes = [tune("m", "r1", 1000), tune("n", "r2", 250)]

    made = making.objects(draft)

    def seen_with(known):
        return outlook(made, World(models, {"d": data()}, {}, known), HOST)

    assert seen_with(tunes[:1]).seconds is None
    found = seen_with(tunes)
    assert found.seconds == 10_000 / 100 + 10_000 / 25 and found.measured_on == "r1, r2"
    assert found.axes == (2, 1, 1) and found.runs == 2
    assert [(job.llm, job.dataset, job.group) for job in found.jobs] == [
        (name, "d", made[0]["metadata"]["name"]) for name in "mn"
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"host": HOST._replace(free_bytes=1 << 20)}, "The disk is too small"),
        ({"model": llm(template=None)}, "has no chat template"),
        (
            {"model": llm(conditions=[{"type": "Ready", "status": "False", "message": "no"}])},
            "cannot be used",
        ),
        ({"resources__accelerators": "2"}, "It asks for {n} GPUs"),
        ({"rows": data(splits={"test": 9})}, "has no rows to train on"),
    ],
)
def test_what_cannot_start_says_why(changes, told):
    assert [text for text, _ in seen(**changes).blocked if told in text]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"host": HOST._replace(memory_bytes=1 << 30)}, "It may not fit"),
        ({"rows": data(dropped=3)}, "left out"),
        ({"rows": data(splits={"train": 80})}, "nothing is scored"),
        ({"rows": data(splits={"train": 80})}, "no eval loss"),
        ({"saveEvery": "1000"}, "{why}"),
    ],
)
def test_what_may_go_wrong_is_said_before(changes, told):
    found = seen(**changes)
    assert [text for text, _ in found.warnings if told in text] and not found.blocked
