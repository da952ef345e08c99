"""The scorer template, installed as a user installs it, called by a real server's real worker."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugins" / "scorer"
ASKED = ("--question", "hello?=thank you", "--question", "bye?=thank you", "--max-new-tokens", "8")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def scorers(site, tmp_path):
    """The platform beside which the template is installed."""
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*install, "--target", str(target), str(EXAMPLE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    site.server.terminate()
    site.server.wait(15)
    site.environment["PYTHONPATH"] = str(target)
    site.start()
    return site


def test_the_template_is_installed_and_scores_a_service_which_another_one_beats(scorers, fake_endpoint):
    (body,) = yaml.safe_load_all((EXAMPLE / "scorer.yaml").read_text())
    scorers.apply(body)
    fake_endpoint.script(replies=["thank you"])
    service = ("--url", fake_endpoint.url, "--metric", "exact-match", *ASKED)
    first = scorers.dtx(
        "score", "run", "--name", "kind", "--service-model", "m", *service, "--plugin", "polite"
    )
    assert first.returncode == 0, first.stdout + first.stderr
    status = scorers.status("sc", "kind")
    assert (status["metrics"]["polite"]["value"], status["metrics"]["polite"]["n"]) == (1.0, 2)
    assert status["score"] == 1.0

    # a further metric on the stored answers: nobody is asked again
    run = ("score", "run", "--service-model")
    asked = len(fake_endpoint.asked)
    again = scorers.dtx(*run, "m", *service, "--metric", "bleu")
    assert again.returncode == 0 and len(fake_endpoint.asked) == asked, again.stdout + again.stderr
    assert "bleu" in again.stdout

    fake_endpoint.script(replies=["no"])
    assert scorers.dtx(*run, "n", *service, "--name", "rude").returncode == 0
    compared = scorers.dtx("score", "compare", "kind", "rude")
    assert compared.stdout == "kind beats rude by 1 +/- 0 in exact-match on the same 2 rows\n", compared
    other = scorers.dtx(
        "score", "run", "--name", "other", "--service-model", "n", *service, "--question", "x=y"
    )
    assert other.returncode == 0, other.stdout + other.stderr
    refused = scorers.dtx("score", "compare", "kind", "other")
    assert refused.returncode == 1 and "measured on other rows" in refused.stderr


def test_a_parameter_that_the_template_does_not_take_is_told_by_its_name(scorers):
    (body,) = yaml.safe_load_all((EXAMPLE / "scorer.yaml").read_text())
    body["spec"]["parameters"] = {"words": "please"}
    scorers.apply(body)

    def told():
        conditions = scorers.status("sp", "polite").get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "False" for c in conditions)

    scorers.until(told, 90, "the parameter is refused")
    found = scorers.status("sp", "polite")
    assert (found["version"], found["package"]) == ("0.1.0", "dtx-polite-scorer")
    (ready,) = [c for c in found["conditions"] if c["type"] == "Ready"]
    assert ready["reason"] == "ParametersInvalid" and "parameters.words" in json.dumps(ready)
