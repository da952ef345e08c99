"""What a list keeps: the columns one wants of it, what is ticked, and names to take along."""

import re
from urllib.parse import unquote

import pytest

from datatunerx.console import PREFIX
from datatunerx.console.kinds import PLURALS
from datatunerx.console.listing import Asked, Column, listing
from datatunerx.console.wizard import draft as drafts

COLUMNS = [Column(name, name.title(), lambda row: row) for name in ("name", "loss", "score")]
JOBS = [f"support-tickets-{group}" for group in ("r8-lr1e-3", "r16-lr1e-3")]


def shown(hidden=(), **query):
    found = listing(
        ["a", "b"],
        COLUMNS,
        Asked.of(query),
        text=str,
        state=str,
        order=str,
        hidden=hidden,
        target="fj/{}".format,
    )
    return [column.name for column in found.shown], found


@pytest.mark.parametrize(
    ("remembered", "asked", "left"),
    [
        ((), "", ["name", "loss", "score"]),
        (("loss",), "", ["name", "score"]),
        (("name", "loss", "never-was", ""), "", ["name", "score"]),
        (("loss",), "name,loss", ["name", "loss"]),
        (("loss",), "name,loss,score", ["name", "loss", "score"]),
        ((), "name", ["name"]),
        (("loss",), "nonsense", ["name", "score"]),
    ],
)
def test_the_url_says_which_columns_are_shown_else_what_was_chosen_last(remembered, asked, left):
    assert shown(remembered, columns=asked)[0] == left


def test_columns_stay_when_one_turns_the_page_and_what_is_gone_is_not_ticked_any_more():
    _, found = shown(columns="name,loss", selected="fj/b,fj/deleted", q="a")
    assert found.asked.url(page=2) == "?q=a&page=2&columns=name%2Closs"
    assert list(found.targets) == ["fj/a", "fj/b"] and found.gone == ["fj/deleted"]


def heads(page):
    return re.findall(r"<th scope=\"col\"[^>]*>\s*(?:<a [^>]*>)?([^<]+)", page.split("<h2>Jobs</h2>")[-1])


async def test_a_browser_remembers_which_columns_of_a_table_it_hides(filled):
    every = ["Job", "State", "Progress", "Loss", "Tokens/s", "Score"]
    page = "experiments/support-tickets"
    assert heads(await filled.get(page)) == every
    headers = {"x-csrf-token": filled.csrf, "origin": "https://127.0.0.1"}

    async def choose(columns, code=204):
        told = await filled.http.post(f"{PREFIX}/remember", data={"columns": columns}, headers=headers)
        assert told.status_code == code
        return told

    told = await choose("experiment:loss.tokens-s")
    assert "HttpOnly" in told.headers["set-cookie"] and "SameSite=strict" in told.headers["set-cookie"]
    found = await filled.get(page)
    assert heads(found) == ["Job", "State", "Progress", "Score"] and 'data-title="Loss"' not in found
    assert heads(await filled.get(f"{page}?columns=name,loss")) == ["Job", "Loss"]  # a link that was sent
    assert 'data-title="Loss"' in await filled.get("jobs")  # each table its own
    await choose("experiment:")
    assert heads(await filled.get(page)) == every
    for nonsense in ("experiment", "a b:loss", f"jobs:{'x' * 401}", "jobs:loss; Path=/"):
        await choose(nonsense, 400)


@pytest.mark.parametrize("page", ["experiments", "jobs", "models", "hyperparameters", "datasets"])
async def test_every_list_leaves_out_the_cells_of_a_hidden_column_and_no_others(filled, page):
    whole = await filled.get(page)
    names = re.findall(r'id="column-([^"]+)" value="\1" checked', whole)
    assert len(names) >= 5
    cells = re.findall(r'data-title="([^"]+)"', whole)
    left = [name for name in names if name != "state"]
    found = await filled.get(f"{page}?columns={','.join(['name', 'job', *left])}")
    assert re.findall(r'data-title="([^"]+)"', found) == [title for title in cells if title != "State"]


async def test_what_is_ticked_can_be_acted_on_from_a_page_that_does_not_show_it(filled):
    """A page of models that has no checkpoint among its rows: the ticked ones are elsewhere."""
    found = await filled.get("models?q=pkg&selected=ckpt/support-tickets-r8-lr1e-3,ckpt/never-was")
    assert 'value="ckpt/' not in found and 'data-gone="ckpt/never-was"' in found
    assert "Use as next base" in found


async def test_several_ticked_checkpoints_become_the_models_of_one_experiment(filled):
    partial = {"hx-request": "true"}
    ticked = "&".join(f"target=ckpt/{job}" for job in JOBS)
    answer = await filled.http.get(f"{PREFIX}/ns/default/new?{ticked}", headers=partial)
    to = unquote(answer.headers["hx-redirect"]).partition("/ns/default/")[2]
    assert to == f"new?base={','.join(JOBS)}"
    page = await filled.get(to)
    assert f"from 2 checkpoints: {', '.join(JOBS)}" in page and 'value="support-tickets-next"' in page
    found = await filled.api.get(PLURALS["LLMCheckpoint"], JOBS[0])
    body = {key: found[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": "elsewhere"}}
    await filled.api.create_raw(
        PLURALS["LLMCheckpoint"], body | {"spec": found["spec"] | {"dataset": "contracts"}}
    )
    names = [*JOBS, "elsewhere"]
    assert f'value="{JOBS[0]}-next"' in await filled.get(f"new?base={','.join(names)}")
    fields = {"name": "all-next", "base": ",".join(names), "do": "next"}
    answer = await filled.post("new", fields)
    path = answer.headers["hx-redirect"].partition("/ns/default/")[2].rpartition("/")[0]
    for name in names:
        made = await filled.api.get(PLURALS["LLM"], name)
        assert made["spec"]["source"] == f"checkpoint://{name}"
    kept = (await drafts.load(filled.api, path.partition("/")[2], "default")).draft
    assert (kept.llms, kept.datasets) == (names, ["support-tickets", "contracts"])
    page = await filled.get(f"{path}/2")
    for what, chosen in (("llm", names), ("dataset", kept.datasets)):
        for name in chosen:
            assert f'type="checkbox" name="{what}" value="{name}" checked' in page


async def test_only_checkpoints_become_bases_and_no_more_than_an_experiment_takes(filled):
    many = "&".join(f"target=ckpt/c{n}" for n in range(65))
    for targets in (f"target=llm/smollm2&target=ckpt/{JOBS[0]}", many):
        told = await filled.get(f"new?{targets}", code=400, headers={"hx-request": "true"})
        assert "Tick checkpoints and nothing else, 64 at most." in told
