"""What a model answered when it was scored: by the API and on the job's page, and no other file instead."""

import json
import re

import pytest

from datatunerx.client.api import Plural
from datatunerx.console.kinds import PLURALS

SCORINGS = Plural("datatunerx.io", "v1beta1", "scorings")
JOB = "support-tickets-r8-lr2e-3"
EVIL = "<script>document.title=1</script>"
PATH = f"/apis/datatunerx.io/v1beta1/namespaces/default/scorings/{JOB}/predictions"


@pytest.fixture
async def scored(filled):
    """Sixty answers, every second one another than its reference."""
    folder = filled.root / "runs" / "0123abcd" / "predictions"
    folder.mkdir(parents=True)
    rows = [
        {"row": n, "question": f"Question {n} {EVIL}", "reference": f"right {n}", "answer": f"right {n}"}
        | ({"answer": f"wrong {n}", "finish": "length"} if n % 2 else {})
        for n in range(60)
    ]
    (folder / "job-ab.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = {"apiVersion": "datatunerx.io/v1beta1", "kind": "Scoring", "metadata": {"name": JOB}}
    await filled.api.create_raw(
        SCORINGS, head | {"spec": {"model": {"name": JOB}, "dataset": "support-tickets"}}
    )
    await _names(filled, (folder / "job-ab.jsonl").as_uri())
    await filled.api.patch_status(PLURALS["FinetuneJob"], JOB, {"status": {"scoring": JOB}})
    return filled


async def _names(filled, uri):
    await filled.api.patch_status(SCORINGS, JOB, {"status": {"predictionsUri": uri}})


def _next(page):
    return re.search(r'rel="next" href="/console/ns/default/([^"]+)"', page)[1].replace("&amp;", "&")


async def test_answers_are_read_page_by_page_and_those_alone_that_are_wrong(scored):
    await scored.login("v" * 40)
    page = await scored.get(f"jobs/{JOB}?tab=scored")
    assert "Question 0 &lt;script" in page and EVIL not in page and "cut off" in page
    seen = re.findall(r"Question (\d+)", page)
    while 'rel="next"' in page:
        page = await scored.get(_next(page))
        seen += re.findall(r"Question (\d+)", page)
    assert seen == [str(n) for n in range(60)] and "From the beginning" in page

    page = await scored.get(f"jobs/{JOB}?tab=scored&unlike=1")
    wrong = re.findall(r"Question (\d+)", page) + re.findall(r"Question (\d+)", await scored.get(_next(page)))
    assert wrong == [str(n) for n in range(1, 60, 2)]


async def test_nothing_is_shown_before_the_model_is_scored(filled):
    assert "No answers yet" in await filled.get(f"jobs/{JOB}?tab=scored")


@pytest.mark.parametrize(
    "place", ["secret.jsonl", "runs/0123abcd/x.jsonl", "runs/0123abcd/predictions/x.key", "/x"]
)
async def test_no_other_file_is_an_answer(scored, place):
    file = scored.root / place
    if file.parent.is_dir() and file.is_relative_to(scored.root):
        file.write_text('{"row": 0}\n')
    await _names(scored, file.as_uri())
    answer = await scored.api.transport.request("GET", PATH)
    assert answer.status == 403 and b"is not" in answer.body
    await _names(scored, (scored.root / "runs/0123abcd/predictions/link.jsonl").as_uri())
    (scored.root / "runs/0123abcd/predictions/link.jsonl").symlink_to("/etc/passwd")
    assert (await scored.api.transport.request("GET", PATH)).status == 403
