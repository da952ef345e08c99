"""Datasets in the console: uploads go by the visitor's token, a form is a spec, a report is as found."""

import hashlib
import json

import pytest

from datatunerx.client.api import Plural
from datatunerx.console import PREFIX, dataset_form, plugin_form, reports
from datatunerx.console.pages.datasets import DRAFT
from datatunerx.data.formats import SPELLINGS

VIEWER = "v" * 40
DATASETS = Plural("datatunerx.io", "v1beta1", "datasets")
PLUGINS = Plural("datatunerx.io", "v1beta1", "dataplugins")
PLACE = f"{PREFIX}/ns/default/datasets/_uploads"
ROWS = b'{"prompt": "a", "completion": "b"}\n' * 300
BEGIN = {"name": "my tickets-dev.jsonl", "size": len(ROWS), "sha256": hashlib.sha256(ROWS).hexdigest()}


async def sent(console, method, path="", body=b"", code=200, **headers):
    headers = {"x-csrf-token": console.csrf, "origin": "https://127.0.0.1"} | headers
    answer = await console.http.request(method, f"{PLACE}{path}", content=body, headers=headers)
    assert answer.status_code == code, answer.text
    return answer.json() if answer.headers["content-type"] == "application/json" else {}


async def test_a_file_goes_up_in_parts_and_on_where_it_broke_off(filled):
    await filled.get("datasets/_new")
    told = await sent(
        filled,
        "POST",
        body=json.dumps(BEGIN),
    )
    assert (told["offset"], told["split"], told["suggested"]) == (0, "validate", "my-tickets-dev")
    await sent(filled, "PUT", f"/{told['id']}?offset=0", ROWS[:4000])
    again = await sent(filled, "POST", body=json.dumps(BEGIN))
    assert (again["id"], again["offset"]) == (told["id"], 4000)
    wrong = await sent(filled, "PUT", f"/{told['id']}?offset=17", ROWS[17:], code=409)
    assert "go on there" in wrong["message"]
    await sent(filled, "PUT", f"/{told['id']}?offset=4000", ROWS[4000:])
    done = await sent(filled, "POST", f"/{told['id']}/complete")
    assert done["uri"] == f"upload://default/{told['id']}/my tickets-dev.jsonl"


async def test_an_upload_that_is_given_up_leaves_nothing(filled):
    await filled.get("datasets/_new")
    told = await sent(filled, "POST", body=json.dumps(BEGIN))
    await sent(filled, "DELETE", f"/{told['id']}")
    await sent(filled, "GET", f"/{told['id']}", code=404)


async def test_an_upload_from_elsewhere_or_by_a_viewer_is_refused(filled):
    await filled.get("datasets/_new")
    await sent(filled, "POST", body=json.dumps(BEGIN), code=403, origin="https://evil.example")
    await sent(filled, "POST", body=json.dumps(BEGIN), code=403, **{"x-csrf-token": "0" * 64})
    await filled.login(VIEWER)
    assert "_new" not in await filled.get("datasets")
    assert "Save and check again" not in await filled.get("datasets/support-tickets?tab=edit")
    told = await sent(filled, "POST", body=json.dumps(BEGIN), code=403)
    assert "cannot create" in told["message"]


async def test_a_part_that_is_too_large_or_a_file_that_is_empty_is_refused_in_words(filled):
    await filled.get("datasets/_new")
    told = await sent(filled, "POST", body=json.dumps(BEGIN | {"size": 0}), code=400)
    assert "empty" in told["message"]
    await sent(filled, "PUT", f"/{'0' * 32}?offset=0", bytes((8 << 20) + 1), code=413)
    await sent(filled, "GET", "/..%2f..%2fapi", code=404)


async def test_a_draft_is_made_anew_until_it_is_registered(filled):
    await filled.get("datasets/_new")
    fields = {"name": "fresh", "llm": "", "train": "upload://default/1/a.jsonl", "test": ""}
    answer = await filled.post("datasets/_new", fields)
    assert answer.headers["hx-redirect"].endswith("/datasets/fresh")
    await filled.post("datasets/_new", fields | {"train": "upload://default/2/b.jsonl"})
    made = await filled.api.get(DATASETS, "fresh")
    assert made["spec"]["subsets"][0]["splits"]["train"] == ["upload://default/2/b.jsonl"]
    assert DRAFT in made["metadata"]["labels"]
    assert "checked, not registered" in await filled.get("datasets?q=fresh")
    answer = await filled.post(
        "datasets/fresh/register", {"next": f"{PREFIX}/ns/default/wizard/x?dataset=NAME"}
    )
    assert answer.headers["hx-redirect"] == f"{PREFIX}/ns/default/wizard/x?dataset=fresh"
    assert not (await filled.api.get(DATASETS, "fresh"))["metadata"].get("labels")
    answer = await filled.post("datasets/_new?way=addresses", fields, code=422)
    assert "There is a dataset of this name" in answer.text


async def test_nobody_is_led_to_another_site(filled):
    await filled.get("datasets")
    for url in ("https://evil.example/", "//evil.example", f"{PREFIX}/ns/../..//evil.example\\"):
        answer = await filled.post("datasets/support-tickets/register", {"next": url})
        assert answer.headers["hx-redirect"].startswith(f"{PREFIX}/ns/")


async def test_faults_stand_at_their_fields(filled):
    await filled.get("datasets")
    fields = {"train": "", "split.validate": "60", "split.test": "many", "split.seed": "x", "format": "auto"}
    edit = "datasets/support-tickets?tab=edit"
    assert 'value="10"' in await filled.get(edit)
    answer = await filled.http.post(
        f"{PREFIX}/ns/default/datasets/support-tickets",
        data=fields | {"csrf": filled.csrf}, headers={"origin": "https://127.0.0.1"},
    )  # fmt: skip
    assert answer.status_code == 422
    for field in ("train", "split.test", "split.seed"):
        assert f'id="f-{field}-fault"' in answer.text, field
    assert 'value="60"' in answer.text and 'value="many"' in answer.text


async def test_a_report_is_shown_with_file_line_and_fix_and_runs_nothing(filled):
    folder = filled.root / "runs" / "p1"
    folder.mkdir(parents=True)
    evil = "<script>document.title=1</script>"
    problem = {
        "reason": "bad JSON",
        "line": 17,
        "field": "messages",
        "found": evil,
        "fix": "write one object",
    }
    facts = {
        "problems": [problem | {"file": f"upload://default/{'a' * 32}/my.jsonl"}],
        "preview": [{"row": "my.jsonl:1", "text": f"<|user|>{evil}<|bot|>fine", "trained": [[-4, None]]}],
    }
    text = facts["preview"][0]["text"]
    facts["preview"][0]["trained"] = [[len(text) - 4, len(text)]]
    (folder / "report.json").write_text(json.dumps(facts))
    uri = (folder / "report.json").as_uri()
    await filled.api.patch_status(DATASETS, "support-tickets", {"status": {"reportUri": uri}})
    await filled.login(VIEWER)
    page = await filled.get("datasets/support-tickets?tab=problems")
    assert "<code>my.jsonl:17</code>" in page and "write one object" in page and evil not in page
    page = await filled.get("datasets/support-tickets?tab=rows")
    assert '<div class="turn trained"><b>learned</b><span dir="auto">fine</span>' in page
    assert evil not in page and "&lt;script&gt;" in page


async def test_what_should_be_known_of_the_splits_before_training_stands_on_the_page(filled):
    shown = await filled.get("datasets/support-tickets")
    assert "Before you train" not in shown
    assert "Validate: 11 % of the rows" in shown and "Test: " not in shown  # which has a file of its own
    split = {"validate": 0.2, "groupBy": "customer.id", "stratifyBy": "topic", "seed": 7}
    await filled.api.patch(DATASETS, "support-tickets", {"spec": {"split": split}})
    obj = await filled.api.get(DATASETS, "support-tickets")
    warning = "no row went to the validate split: too few <groups>"
    report = obj["status"]["report"] | {"warnings": [warning], "splits": {"train": 273, "validate": 0}}
    await filled.api.patch_status(DATASETS, "support-tickets", {"status": {"report": report}})
    for path in ("datasets/support-tickets", "datasets/support-tickets/check"):
        page = await filled.get(path)
        assert (
            "too few &lt;groups&gt;" in page and "Validate: 0 % of the rows" in page and "20 % asked" in page
        )
        assert "same customer.id stay together" in page and "Each value of topic" in page and "Seed 7" in page


@pytest.mark.parametrize(
    "uri", ["file:///etc/passwd", "file://ROOT/runs/p1/../../secret.key", "s3://b/report.json"]
)
async def test_no_other_file_is_a_report(filled, uri):
    uri = uri.replace("ROOT", str(filled.root))
    await filled.api.patch_status(DATASETS, "support-tickets", {"status": {"reportUri": uri}})
    path = "/apis/datatunerx.io/v1beta1/namespaces/default/datasets/support-tickets/report"
    answer = await filled.api.transport.request("GET", path)
    assert answer.status in (403, 501)
    assert "No rows to show" in await filled.get("datasets/support-tickets?tab=rows")


async def test_a_plugin_is_asked_for_by_its_schema_and_makes_a_new_dataset(filled):
    schema = {
        "required": ["lang"],
        "properties": {
            "lang": {"enum": ["en", "zh", 3]},
            "limit": {"type": "integer", "description": "Rows at most."},
            "tags": {"type": "array", "default": ["x"]},
        },
    }
    await filled.api.patch_status(PLUGINS, "from-tickets", {"status": {"parameterSchema": schema}})
    page = await filled.get("datasets/support-tickets?tab=plugin")
    assert "Rows at most." in page and "<option>zh</option>" in page
    fields = {"plugin": "from-tickets", "name": "made", "p.limit": "many", "p.tags": '["y"]'}
    post = f"{PREFIX}/ns/default/datasets/support-tickets/plugin"
    headers = {"origin": "https://127.0.0.1", "x-csrf-token": filled.csrf}
    answer = await filled.http.post(post, data=fields, headers=headers)
    assert answer.status_code == 422 and answer.text.count('class="fault"') == 2
    answer = await filled.http.post(post, data=fields | {"p.limit": "5", "p.lang": "3"}, headers=headers)
    assert answer.headers["location"].endswith("/datasets/made")
    made = (await filled.api.get(DATASETS, "made"))["spec"]
    assert made["plugin"] == {"ref": "from-tickets", "parameters": {"lang": 3, "limit": 5, "tags": ["y"]}}
    assert made["subsets"][0]["splits"]["train"] == ["file:///data/train.jsonl"]


# Pure


@pytest.mark.parametrize(
    ("file", "split"),
    [
        ("train.jsonl", "train"), ("tickets-test.csv", "test"), ("DEV.parquet", "validate"),
        ("contest.jsonl", "train"), ("my_validation_2.json", "validate"), ("latest.txt", "train"),
    ],
)  # fmt: skip
def test_a_file_is_for_the_split_its_name_says(file, split):
    assert dataset_form.split_of(file) == split


def test_names_are_free_and_as_kubernetes_wants_them():
    assert dataset_form.name_for("My Tickets (2).v1.jsonl", ()) == "my-tickets-2"
    assert dataset_form.name_for("faq.csv", ("faq", "faq-2")) == "faq-3"
    assert dataset_form.name_for("数据.jsonl", ()) == "data"
    assert dataset_form.file_name("../a/b&c?.jsonl") == "b_c_.jsonl"


def test_what_the_form_shows_is_what_it_sends():
    spec = {
        "subsets": [{"name": "en", "splits": {"train": ["a", "b"], "test": ["c"]}}],
        "format": "alpaca", "features": [{"name": "output", "mapTo": "reply"}], "llm": "smol",
        "split": {"validate": 0.05, "test": 0.0, "seed": 7, "groupBy": "customer"}, "tags": ["x", "y"],
    }  # fmt: skip
    patch, faults = dataset_form.spec_of(dataset_form.values_of(spec), spec)
    kept = {key: value for key, value in patch.items() if value is not None}
    kept["split"] = {key: value for key, value in kept["split"].items() if value is not None}
    assert (kept, faults) == (spec, {})


def test_the_parts_of_a_row_are_those_that_the_reader_knows():
    known = {part for parts in SPELLINGS.values() for part in parts}
    assert {*dataset_form.MAIN_PARTS, *dataset_form.OTHER_PARTS} == known


def test_columns_are_taken_from_a_refusal():
    said = "odd.csv: columns antwort, frage, ... are no known format (chosen + rejected; text)"
    assert dataset_form.columns_in(said) == ["antwort", "frage"]
    assert dataset_form.columns_in("there is no column 'x' (found a, b)") == ["a", "b"]
    assert dataset_form.columns_in("the file is gone") == []


def test_a_row_is_shown_in_part_when_it_is_long_and_says_so():
    facts = {"preview": [{"row": "a:1", "messages": [{"role": "user", "content": "x" * 9000}]}]}
    (row,) = reports.rows(facts)
    assert len(row.parts[0].text) == reports.SHOWN_CHARACTERS and row.cut == 9000 - reports.SHOWN_CHARACTERS


def test_a_cutoff_stands_in_its_bin():
    report = {"histogram": [{"upTo": 32, "rows": 4}, {"upTo": 64, "rows": 8}, {"upTo": 128, "rows": 2}]}
    bars = reports.histogram(report, [96])
    assert [bar["cut"] for bar in bars] == [None, None, 96]
    assert bars[2]["cut_x"] == pytest.approx(bars[2]["x"] + (bars[2]["width"] + 4) / 2)
    assert bars[1]["height"] == 120


def test_a_parameter_left_empty_is_left_out():
    fields = [plugin_form.Field("a", "number", "", ""), plugin_form.Field("b", "text", "", "")]
    assert plugin_form.values(fields, {"p.a": "", "p.b": " x "}) == ({"b": "x"}, {})
    assert plugin_form.values(fields, {"p.a": "true"})[1] == {"p.a": "Write a number."}
