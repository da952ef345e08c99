"""A team with a bucket and a beginner with a file: registered, trained on, and cleaned up after."""

import gzip
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SECRET_VALUE = "a-value-nobody-may-see"


def rows(count: int) -> bytes:
    made = ({"prompt": f"say {n}", "completion": ("red", "green", "blue")[n % 3]} for n in range(count))
    return "".join(json.dumps(row) + "\n" for row in made).encode()


def secret(name: str, **values: str) -> dict:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


def ready(site, name: str, wanted: str) -> dict:
    def condition() -> dict:
        found = site.status("dataset", name).get("conditions", [])
        return next((c for c in found if c["type"] == "Ready"), {})

    site.until(lambda: condition().get("status") == wanted, 60, f"{name} Ready={wanted}: {condition()}")
    return condition()


def du(path: Path) -> int:
    return int(subprocess.run(["du", "-s", "-B1", path], capture_output=True, check=True).stdout.split()[0])


def seen(home: Path, value: str) -> list[str]:
    """Files of the home in which a value stands in plain."""
    return [str(p) for p in home.rglob("*") if p.is_file() and value.encode() in p.read_bytes()]


@pytest.mark.timeout(300)
def test_a_bucket_is_trained_on_with_one_url_and_one_secret(site, make, s3, tiny_model: Path) -> None:
    for n in range(2):
        s3.put(f"data/set/part-{n}.jsonl.gz", gzip.compress(rows(12)))
    keys = s3.member("owner") | {"secretAccessKey": SECRET_VALUE}
    spec = {"credentials": {"secretRef": {"name": "bucket"}, "endpoint": s3.url}, "llm": "tiny"}
    uri = "s3://data/set/part-*.jsonl.gz"
    site.apply(make.llm(str(tiny_model)), make.group(), make.dataset(uri, **spec))
    # 1. The Secret is not there yet, and is waited for
    assert ready(site, "colours", "False")["reason"] == "SecretNotFound"
    site.apply(secret("bucket", **keys))
    # 2. The dataset is inspected, and trained on from its copy: the bucket is emptied before
    assert (
        "24" in ready(site, "colours", "True")["message"]
        or site.status("dataset", "colours")["report"]["read"]
    )
    for n in range(2):
        s3.put(f"data/set/part-{n}.jsonl.gz", b"gone")
    site.apply(make.finetune("one"))
    site.until(lambda: site.phase("finetune", "one") in ("Succeeded", "Failed"), 120, "the training ends")
    assert site.phase("finetune", "one") == "Succeeded", site.status("finetune", "one")
    # 3. The value went to the worker and nowhere else
    assert seen(site.home, SECRET_VALUE) == [] and seen(site.home.parent, SECRET_VALUE) == []
    assert SECRET_VALUE not in site.dtx("get", "run", "-o", "json").stdout
    # 4. The copies are the Dataset's; the tokens, which can be made again, are nobody's
    listed = [line.split() for line in site.dtx("cache", "list").stdout.splitlines()]
    users = {words[0]: words[-1] for words in listed if words[0] in ("fetched", "tokens")}
    assert users == {"fetched": "Dataset/colours", "tokens": "nobody"}
    root = site.home / "data"
    before = du(root)
    said = site.dtx("cache", "clean").stdout
    assert "tokens" in said and "fetched" not in said and du(root) < before
    site.apply(make.finetune("two"))
    site.until(lambda: site.phase("finetune", "two") in ("Succeeded", "Failed"), 120, "the second ends")
    assert site.phase("finetune", "two") == "Succeeded", site.status("finetune", "two")


@pytest.mark.timeout(200)
def test_wrong_credentials_fail_at_registration(site, make, s3) -> None:
    s3.put("data/a.jsonl", rows(3))
    keys = s3.member("reader") | {"secretAccessKey": SECRET_VALUE}
    s3.guard()
    spec = {"credentials": {"secretRef": {"name": "bucket"}, "endpoint": s3.url}}
    site.apply(secret("bucket", **keys), make.dataset("s3://data/*.jsonl", **spec))
    said = ready(site, "colours", "False")["message"]
    assert "s3://data/*.jsonl" in said and "may not be read with Secret bucket" in said, said
    assert SECRET_VALUE not in said and seen(site.home, SECRET_VALUE) == []


@pytest.mark.timeout(200)
def test_an_uploaded_file_becomes_a_dataset_and_its_bytes_can_be_had_back(site) -> None:
    path = site.files / "tickets.jsonl"
    path.write_bytes(rows(20000) + b"{broken\n")
    done = site.dtx("dataset", "upload", str(path), "--format", "prompt-completion")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dataset.datatunerx.io/tickets created" in done.stdout
    assert "20,001 read, 20,000 kept, 1 dropped" in done.stdout and "/tickets.jsonl:20001" in done.stdout
    assert "MB a second" in done.stderr

    root = site.home / "data"
    listed = site.dtx("cache", "list").stdout
    assert "upload" in listed and "Dataset/tickets" in listed
    before = du(root)
    assert "0 B given back" in site.dtx("cache", "clean").stdout
    assert du(root) == before  # what a Dataset uses stays

    assert site.dtx("delete", "dataset/tickets").returncode == 0
    before = du(root)
    told = site.dtx("cache", "clean")
    assert "given back" in told.stdout, told.stdout + told.stderr
    assert before - du(root) >= path.stat().st_size
    assert not list((root / "uploads").rglob("tickets.jsonl"))


SMALL_PARTS = """
import runpy
from datatunerx.client import uploads
uploads.PART_BYTES = 1 << 16
runpy.run_module("datatunerx.cli", run_name="__main__")
"""
"""`dtx`, but that an upload takes long enough to be killed in the middle of it."""


@pytest.mark.timeout(200)
def test_an_upload_whose_command_was_killed_goes_on_where_it_was(site) -> None:
    path = site.files / "large.jsonl"
    with path.open("w") as file:
        for n in range(40):
            file.write(json.dumps({"prompt": f"say {n}", "completion": os.urandom(500_000).hex()}) + "\n")
    words = ["dataset", "upload", str(path), "--format", "prompt-completion"]
    parts = site.home / "data" / "uploads" / ".parts"

    def arrived() -> int:
        return sum(
            found.stat().st_size for found in parts.rglob("*") if found.is_file() and found.suffix != ".json"
        )

    nothing = subprocess.DEVNULL
    killed = subprocess.Popen(
        [sys.executable, "-c", SMALL_PARTS, *words], env=site.environment, stdout=nothing, stderr=nothing
    )
    end = time.monotonic() + 60
    while arrived() < 1 << 20:
        assert killed.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    here = arrived()
    assert here < path.stat().st_size, "the upload was over before it could be killed"

    done = site.dtx(*words)

    assert done.returncode == 0, done.stdout + done.stderr
    first = re.match(r"large\.jsonl: ([0-9.]+) of ([0-9.]+) MB", done.stderr)
    assert first and float(first[1]) >= round(here / 1e6, 1) > 0, done.stderr
    assert "40 read, 40 kept" in done.stdout
    (uploaded,) = (site.home / "data" / "uploads").rglob("large.jsonl")
    assert uploaded.read_bytes() == path.read_bytes()


def test_a_file_that_cannot_be_used_says_why_and_fails(site) -> None:
    (site.files / "bad.jsonl").write_text("{}\n")
    done = site.dtx("dataset", "upload", str(site.files / "bad.jsonl"))
    assert done.returncode == 1 and "bad.jsonl" in done.stdout, done.stdout + done.stderr
    assert site.dtx("dataset", "upload", str(site.files / "none.jsonl")).returncode == 2
