"""A plugin project is installed, its DataPlugin applied, and a Dataset is made by it, on a real server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).parents[2] / "examples" / "plugins"


@pytest.fixture
def installed(site, tmp_path: Path) -> Path:
    """The example, installed where only this site's processes look."""
    target = tmp_path / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index",
         "--no-deps", "--no-build-isolation", "--target", target, PROJECT],
        check=True,
    )  # fmt: skip
    site.environment["PYTHONPATH"] = os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")])
    site.kill()
    site.start()
    return target


def ready(site, kind: str, name: str, *wanted: str) -> dict:
    """The Ready condition, once its reason is one of these."""

    def now() -> dict:
        found = site.status(kind, name).get("conditions", [])
        return next((c for c in found if c["type"] == "Ready"), {})

    site.until(lambda: now().get("reason") in wanted, 60, f"{kind} {name} is {wanted}")
    return now()


@pytest.mark.timeout(300)
def test_an_installed_plugin_makes_a_dataset_and_says_what_is_wrong_with_another(site, installed) -> None:
    done = site.dtx("apply", "-f", str(PROJECT / "faq.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    # 1. What the plugin is has been found out by loading it elsewhere
    assert ready(site, "dataplugin", "faq", "Found")["status"] == "True"
    status = site.status("dataplugin", "faq")
    assert (status["package"], status["version"]) == ("dtx-faq-plugin", "0.1.0")
    assert status["parameterSchema"]["required"] == ["system"]
    # 2. Its rows are a version of the data with a digest, inspected as any other
    assert ready(site, "dataset", "shop", "Inspected")["status"] == "True"
    status = site.status("dataset", "shop")
    made = status["made"]
    path = Path(made["splits"]["train"][0].removeprefix("file://"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert made["rows"] == len(rows) == status["report"]["read"] == 5
    assert rows[0]["messages"][0] == {"role": "system", "content": "You work in a shop."}
    assert made["digest"] == status["digest"]
    assert made["leftOut"] == [{"reason": "neither Q: nor A:", "count": 1, "where": ["shop.txt:1"]}]
    assert site.get("run", made["run"])["spec"]["type"] == "make"
    # 3. A wrong parameter is named, and nothing is run for it
    shop = site.get("dataset", "shop")["spec"]
    wrong = {**shop, "plugin": {"ref": "faq", "parameters": {"system": 7}}}
    runs = len(json.loads(site.dtx("get", "run", "-o", "json").stdout)["items"])
    site.apply({"kind": "Dataset", "metadata": {"name": "wrong"}, "spec": wrong})
    said = ready(site, "dataset", "wrong", "ParametersInvalid")
    assert "spec.plugin.parameters.system" in said["message"]
    assert len(json.loads(site.dtx("get", "run", "-o", "json").stdout)["items"]) == runs
    # 4. What the plugin raises is what the user reads
    broken = site.files / "broken.txt"
    broken.write_text("A: nobody asked\n")
    spec = {**shop, "subsets": [{"splits": {"train": [str(broken)]}}]}
    site.apply({"kind": "Dataset", "metadata": {"name": "broken"}, "spec": spec})
    said = ready(site, "dataset", "broken", "PluginFailed")
    assert said["message"].startswith("plugin faq: broken.txt:1: an answer to no question; write Q: above it")
    # 5. What was made goes with its Dataset, and the plugin with its last user
    for name in ("shop", "wrong", "broken"):
        assert site.dtx("delete", f"dataset/{name}").returncode == 0
    site.until(lambda: not path.exists(), 90, "the made files are gone")
