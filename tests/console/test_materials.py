"""What pages say of checkpoints, groups, plugins and scores: lineage, differences, last runs, intervals."""

import re

from datatunerx.client.api import Plural
from datatunerx.console import lineage
from datatunerx.console.kinds import PLURALS

BEST, OTHER = "support-tickets-r8-lr2e-3", "support-tickets-r8-lr1e-3"
SCORINGS = Plural("datatunerx.io", "v1beta1", "scorings")


def checkpoint(name, **spec):
    return {"metadata": {"name": name}, "spec": {"finetune": "t", "llm": "m", "dataset": "d"} | spec}


def names(layers):
    return [[node.name for node in layer.nodes] for layer in layers]


def test_a_lineage_goes_from_the_oldest_forebear_to_what_goes_on_from_it():
    parents = {"a": None, "b": "a", "c": "b", "d": "c"}
    every = [checkpoint(name, parent=parent) for name, parent in parents.items()]
    tune = {"metadata": {"name": "t", "ownerReferences": [{"kind": "FinetuneJob", "name": "job"}]}}
    tune["spec"] = {"hyperparameter": {"ref": "r8"}}
    found = lineage.layers(every[2], every, tune)
    assert names(found) == [["a"], ["b"], ["m", "d", "r8"], ["job"], ["c"], ["d"]]
    assert [layer.here for layer in found].index(True) == 4


def test_what_was_deleted_is_named_and_leads_nowhere_and_a_circle_ends():
    lonely = checkpoint("b", parent="gone")
    found = lineage.layers(lonely, [lonely], None)
    assert names(found) == [["gone"], ["m", "d"], ["t"], ["b"]]
    assert found[0].nodes[0].kind == found[2].nodes[0].kind == ""
    one, two = checkpoint("one", parent="two"), checkpoint("two", parent="one")
    assert names(lineage.layers(one, [one, two], None))[:2] == [["one"], ["two"]]


async def test_a_checkpoint_shows_its_lineage_and_its_digests_to_copy(filled):
    await filled.api.patch(PLURALS["LLMCheckpoint"], OTHER, {"spec": {"parent": BEST}})
    page = await filled.get(f"models/ckpt/{BEST}")
    drawn = page.split('<ol class="lineage">')[1].split("</ol>")[0]
    links = re.findall(r'href="/console/ns/default/([^"]+)"', drawn)
    assert links == [
        "models/llm/smollm2", "datasets/support-tickets", "hyperparameters/r8-lr2e-3", f"jobs/{BEST}",
        f"models/ckpt/{OTHER}",
    ]  # fmt: skip
    assert f'data-copy="{"4f" * 16}"' in drawn and '<li aria-current="true">' in drawn


async def test_groups_beside_each_other_show_what_differs_or_that_nothing_does(filled):
    page = await filled.get("hyperparameters/r8-lr1e-3?beside=r16-lr2e-3")
    body = page.split("<tbody>")[1].split("</tbody>")[0]
    assert re.findall(r"<code>([\w.]+)</code>", body) == ["learningRate", "lora.rank"]
    group = PLURALS["Hyperparameter"]
    twin = await filled.api.get(group, "r8-lr1e-3")
    body = {key: twin[key] for key in ("apiVersion", "kind", "spec")}
    await filled.api.create_raw(group, body | {"metadata": {"name": "twin"}})
    assert "Nothing differs" in await filled.get("hyperparameters/r8-lr1e-3?beside=twin")


async def test_a_plugin_says_what_it_was_last_run_for(filled):
    assert "It has not run yet" in await filled.get("plugins/dp/from-tickets")
    dataset = PLURALS["Dataset"]
    await filled.api.patch(dataset, "contracts", {"spec": {"plugin": {"ref": "from-tickets"}}})
    made = {"run": "run-x", "digest": "ab" * 32, "rows": 1234, "splits": {}}
    await filled.api.patch_status(dataset, "contracts", {"status": {"made": made}})
    page = await filled.get("plugins/dp/from-tickets")
    assert "/datasets/contracts" in page and "/devices/run-x" in page and "1,234" in page


async def test_a_job_shows_every_metric_with_its_interval_and_why_one_is_missing(filled):
    assert "<h2>Scores</h2>" not in await filled.get(f"jobs/{BEST}")
    head = {"apiVersion": "datatunerx.io/v1beta1", "kind": "Scoring", "metadata": {"name": BEST}}
    spec = {"model": {"name": BEST}, "dataset": "support-tickets"}
    await filled.api.create_raw(SCORINGS, head | {"spec": spec})
    metrics = {
        "bleu": {"n": 0, "whyMissing": "no reference"},
        "field-accuracy": {"value": 0.854, "low": 0.79, "high": 0.91, "n": 82},
        "perplexity": {"value": 3.25, "low": 3.0, "high": 3.5, "n": 82, "higherIsBetter": False},
    }
    await filled.api.patch_status(
        SCORINGS, BEST, {"status": {"metric": "field-accuracy", "metrics": metrics}}
    )
    await filled.api.patch_status(PLURALS["FinetuneJob"], BEST, {"status": {"scoring": BEST}})
    page = (await filled.get(f"jobs/{BEST}")).split("<h2>Scores</h2>")[1].split("</table>")[0]
    assert "0.790 to 0.910, on 82 rows" in await filled.get(f"models/ckpt/{BEST}")
    assert page.index("field-accuracy") < page.index("bleu")
    assert "0.790 – 0.910" in page and "no reference" in page and "lower is better" in page
