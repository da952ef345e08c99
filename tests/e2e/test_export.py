"""From a winner onwards: taken home, pushed, trained again byte for byte, and a base of the next one."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PARAMETERS = {"batchSize": 4, "cutoffLength": 64, "learningRate": 0.01, "precision": "float32"}


def ended(site, name: str) -> bool:
    return site.phase("fe", name) in ("Succeeded", "Failed")


def experiment(site, name: str, llm: str, dataset: str, **parameters) -> None:
    scoring = {"metrics": ["exact-match"], "generation": {"maxNewTokens": 8}}
    site.apply(
        {"kind": "Hyperparameter", "metadata": {"name": name}, "spec": PARAMETERS | parameters},
        {"kind": "FinetuneExperiment", "metadata": {"name": name},
         "spec": {"scoring": scoring, "jobs": [{
             "name": "j", "llm": llm, "dataset": dataset, "hyperparameter": {"ref": name}}]}},
    )  # fmt: skip


def test_a_winner_goes_home_and_on(site, tiny_model, colour_rows, registry, tmp_path):
    data = tmp_path / "colours.jsonl"
    lines = [json.dumps(row) + "\n" for row in colour_rows]
    data.write_text("".join(lines))
    whole = {"split": {"validate": 0, "test": 0}}
    splits = {"train": [str(data)], "test": [str(data)]}
    site.apply(
        {"kind": "LLM", "metadata": {"name": "tiny"}, "spec": {"source": str(tiny_model)}},
        {
            "kind": "Dataset",
            "metadata": {"name": "colours"},
            "spec": whole | {"subsets": [{"splits": splits}]},
        },
    )
    # The second experiment is applied with the first: its base does not exist yet.
    experiment(site, "one", "tiny", "colours", maxSteps=4)
    more = tmp_path / "more.jsonl"
    purple = json.dumps(colour_rows[0]).replace("red", "purple") + "\n"
    more.write_text("".join(lines[1:]) + purple)
    splits = {"train": [str(more)], "test": [str(data)]}
    site.apply(
        {"kind": "Dataset", "metadata": {"name": "more"}, "spec": whole | {"subsets": [{"splits": splits}]}}
    )
    experiment(site, "two", "one-j", "more", maxSteps=2)
    site.until(lambda: ended(site, "one") and ended(site, "two"), 200, "both have ended")
    assert site.phase("fe", "two") == "Succeeded", site.get("fe", "two")

    # Registry and lineage: the second came from the first.
    assert site.get("llm", "one-j")["spec"]["source"] == "checkpoint://one-j"
    second = site.get("ckpt", "two-j")["spec"]
    assert second["parent"] == "one-j" and second["origin"]["versions"]["torch"]
    assert (
        second["origin"]["inexact"] == []
        and second["origin"]["seed"] == json.loads(second["parametersJson"])["seed"]
    )
    table = site.dtx("get", "ckpt").stdout.splitlines()
    assert table[0].split()[:6] == ["NAME", "READY", "SCORE", "BASE", "JOB", "SIZE"]
    told = site.dtx("lineage", "two-j").stdout
    assert "which came from one-j" in told and str(tiny_model) in told
    changed = site.dtx("diff", "one-j", "two-j")
    assert changed.returncode == 0, changed.stderr
    assert "maxSteps" in changed.stdout and "1 only in two-j\n  + say purple" in changed.stdout

    # Trained again, the same bytes.
    again = site.dtx("rerun", "ft/one-j")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "same weights, byte for byte" in again.stdout
    assert not any((site.home / "data" / "reruns").iterdir())

    # Taken home, as a folder and into a registry.
    out = tmp_path / "out"
    done = site.dtx("export", "two-j", "--to", "gguf", "--type", "q8_0", "--output", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "model.gguf").is_file() and "greedy answers are the same" in done.stdout
    target = f"oci://{registry}/team/tiny:v1"
    for secret, password in (("wrong", "nope"), ("right", "pass-word-1")):
        keys = {"username": "ann", "password": password}
        made = site.dtx("apply", "-f", "-", stdin=json.dumps(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "stringData": keys}
        ))  # fmt: skip
        assert made.returncode == 0, made.stderr
    push = ["export", "two-j", "--to", "adapter", "--output", target, "--plain-http", "--secret"]
    refused = site.dtx(*push, "wrong")
    assert (
        refused.returncode == 1
        and "does not take the username and password of Secret wrong" in refused.stderr
    )
    done = site.dtx(*push, "right")
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.dtx(*push, "right").stderr.count("there is such a tag already") == 1
    layout = f"oci-layout:{tmp_path / 'layout'}"
    done = site.dtx("export", "two-j", "--to", "adapter", "--output", layout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is there already" in site.dtx("export", "two-j", "--output", layout).stderr
    exports = site.status("ckpt", "two-j")["exports"]
    assert [e["phase"] for e in exports] == ["Succeeded", "Failed", "Succeeded", "Failed", "Succeeded"]
    pushed, laid = (exports[n]["outcome"]["digest"] for n in (2, 4))
    assert pushed == laid and (tmp_path / "layout/blobs" / laid.replace(":", "/")).is_file()
    unknown = site.dtx("export", "two-j", "--to", "gguf", "--type", "q9")
    assert unknown.returncode == 2 and "must be one of auto, f32, f16, bf16, q8_0" in unknown.stderr
