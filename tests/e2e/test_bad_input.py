"""Whatever is wrong is said with its place and its mend, and the platform goes on."""

import asyncio
import json
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datatunerx.client import Api
from datatunerx.client.https import Https
from datatunerx.client.kubeconfig import load
from datatunerx.resources.material import Dataset

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def ready_message(site, kind, name, seconds=60):
    """The message of the object's Ready condition once it is False."""

    def condition():
        conditions = site.status(kind, name).get("conditions", [])
        return next((c for c in conditions if c["type"] == "Ready" and c["status"] == "False"), None)

    site.until(lambda: condition() is not None, seconds, f"{kind} {name} is not Ready")
    return condition()["message"]


def test_wrong_objects_are_refused_and_the_next_right_one_is_taken(site, make, tiny_model, colour_rows):
    fast = site.try_apply(make.group("g", learningRate="fast"))
    assert fast.returncode == 2
    assert "learningRate" in fast.stderr and "fast" in fast.stderr
    metric = make.experiment("e", ["g"])
    metric["spec"]["scoring"]["metrics"] = ["rouge-99"]
    unknown = site.try_apply(metric)
    assert unknown.returncode == 2
    assert "rouge-99" in unknown.stderr and "rouge-l" in unknown.stderr

    broken = [
        {"messages": [{"role": "user", "content": "say red"}]},
        {"messages": [{"role": "user", "content": "say blue"}]},
    ]
    nowhere = site.files / "empty"
    nowhere.mkdir()
    pickled = site.files / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    latin = site.files / "latin.jsonl"
    latin.write_bytes(b'{"prompt": "a", "completion": "caf\xe9"}\n')
    site.apply(
        make.dataset(site.data_file("no-answer.jsonl", broken), "no-answer"),
        make.dataset(latin.as_uri(), "latin"),
        make.dataset("train.jsonl", "relative"),
        make.llm(nowhere.as_uri(), "nowhere"),
        make.llm(pickled.as_uri(), "pickled"),
        make.group(),
        make.finetune("lonely", dataset="missing", llm="nobody"),
    )
    said = ready_message(site, "ds", "no-answer")
    assert "no-answer.jsonl:1" in said and "assistant" in said
    said = ready_message(site, "ds", "latin")
    assert "latin.jsonl:1" in said and "UTF-8" in said
    assert "file://" in ready_message(site, "ds", "relative")
    assert "config.json" in ready_message(site, "llm", "nowhere")
    assert "safetensors" in ready_message(site, "llm", "pickled")
    lonely = site.status("ft", "lonely")
    assert lonely["phase"] == "Pending"
    assert "nobody" in lonely["message"] or "missing" in lonely["message"]

    site.apply(
        make.llm(tiny_model.as_uri()),
        make.dataset(site.data_file("colours.jsonl", colour_rows)),
        make.group("short", cutoffLength=8),
        make.finetune("cut", "short"),
        make.finetune("good"),
    )
    site.until(lambda: site.phase("ft", "good") == "Succeeded", 120, "the good one ends well")
    site.until(lambda: site.phase("ft", "cut") == "Failed", 60, "the one without trained tokens fails")
    assert "cutoffLength" in site.status("ft", "cut")["message"]


def test_neither_a_dataset_nor_a_model_reaches_the_servers_own_files(site, make):
    home, links = site.home, site.files / "links"
    links.symlink_to(home)
    model = site.files / "model"
    model.mkdir()
    (model / "config.json").symlink_to(home / "secret.key")
    site.apply(
        make.dataset((home / "token").as_uri(), "token"),
        make.dataset((links / "db" / "objects.db").as_uri(), "over-a-link"),
        make.dataset((home / "tls").as_uri() + "/*.key", "pattern"),
        make.dataset((home / "kubeconfig").as_uri().replace("kube", "%6bube"), "encoded"),
        make.dataset("file:///proc/self/environ", "environment"),
        make.llm((home / "data" / "models").as_uri(), "inside"),
        make.llm(model.as_uri(), "link-in-a-folder"),
    )
    for kind, name in [
        ("ds", "token"), ("ds", "over-a-link"), ("ds", "pattern"), ("ds", "encoded"),
        ("llm", "inside"), ("llm", "link-in-a-folder"),
    ]:  # fmt: skip
        said = ready_message(site, kind, name)
        assert str(home) in said and "the server's own" in said and "dtx upload" in said, (name, said)
        reasons = [c["reason"] for c in site.status(kind, name)["conditions"] if c["type"] == "Ready"]
        assert reasons == ["PrivatePlace"]
    assert "where no data is" in ready_message(site, "ds", "environment")


def test_an_experiment_ranks_what_succeeded_and_lists_what_failed(site, make, tiny_model, colour_rows):
    site.apply(
        make.llm(tiny_model.as_uri()),
        make.dataset(site.data_file("colours.jsonl", colour_rows)),
        make.group("good", maxSteps=30),
        make.group("cut", cutoffLength=8),
        make.experiment("e", ["good", "cut"]),
    )
    site.until(lambda: site.phase("fe", "e") in ("Succeeded", "Failed"), 180, "the experiment ends")
    status = site.status("fe", "e")
    assert status["phase"] == "Succeeded"
    assert [f["job"] for f in status["failures"]] == ["e-cut"]
    assert {row["name"] for row in status["ranking"] if row.get("rank")} == {"e-good", "tiny"}
    base = next(row for row in status["ranking"] if row.get("base"))
    assert status["best"]["job"] == "e-good"
    assert status["best"]["score"] > base["score"]
    site.kill()
    site.start()
    assert site.status("fe", "e") == status, "what is terminal stays as it was"


ANSWER_SECONDS = 0.1


def hostile_files(folder):
    """Files that cost whoever reads them as much as they can, by the dataset's name."""
    with (folder / "line.jsonl").open("wb") as file:  # a line of 2 GB, which takes no place on the disk
        file.write(b"{\n" * 40)
        file.truncate(2 << 30)
    (folder / "brackets.json").write_text("[" * (16 << 20))
    (folder / "lists.jsonl").write_text('{"prompt": [' + "[]," * 1_300_000 + '[]], "completion": "b"}\n')
    (folder / "quote.csv").write_text('prompt,completion\n"a' + "x\n" * (8 << 20))
    bomb = pa.table({"prompt": ["x" * 1000] * 100_000, "completion": [None] * 100_000})
    with pq.ParquetWriter(folder / "bomb.parquet", bomb.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(bomb)
    (folder / "bad.jsonl").write_text("{\n" * 200_000)
    return {path.stem: path.as_uri() for path in folder.iterdir()}


def test_the_server_answers_while_hostile_files_are_read(site, make):
    folder = site.files / "hostile"
    folder.mkdir()
    names = hostile_files(folder)
    site.apply(*(make.dataset(uri, name) for name, uri in names.items()))

    async def ask() -> list[float]:
        """How long each answer took, until every file is judged."""
        waits = []
        async with Https(load(site.home / "kubeconfig")) as transport:
            api = Api(transport)
            deadline = time.monotonic() + 200
            while True:
                begun = time.perf_counter()
                found = await api.list(Dataset)
                waits.append(time.perf_counter() - begun)
                ready = [one.status.condition("Ready") for one in found]
                judged = [one for one in ready if one and one.status in ("True", "False")]
                if len(judged) == len(names):
                    return waits
                assert time.monotonic() < deadline, f"{len(judged)} of {len(names)} are judged"
                await asyncio.sleep(0.02)

    waits = sorted(asyncio.run(ask()))

    for name in names:
        said = ready_message(site, "ds", name, 1)
        assert f"hostile/{name}." in said and "Fix: " in said and "Traceback" not in said, said
    logs = [path.read_text(errors="replace") for path in (site.home / "data" / "runs").glob("*/worker.log")]
    assert len(logs) == len(names) and not any("Traceback" in log for log in logs)
    assert len(waits) > 50
    p95 = waits[int(len(waits) * 0.95)]
    assert p95 <= ANSWER_SECONDS, [round(one, 3) for one in waits[:: max(1, len(waits) // 20)]]
    print(json.dumps({"answers": len(waits), "p50": waits[len(waits) // 2], "max": waits[-1]}))
