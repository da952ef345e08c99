"""An action says what it will send and what is lost; then it does that and nothing else."""

import re

from datatunerx.client.api import Plural

EXPERIMENTS = Plural("datatunerx.io", "v1beta1", "finetuneexperiments")
SERVICES = Plural("datatunerx.io", "v1beta1", "inferenceservices")
JOBS = Plural("datatunerx.io", "v1beta1", "finetunejobs")


async def test_stop_and_resume_turn_suspend_on_and_off(filled):
    asked = await filled.get("act?do=stop&target=fe/faq-zh-qwen")
    assert "dtx stop fe/faq-zh-qwen" in asked and "kubectl patch finetuneexperiments faq-zh-qwen" in asked
    await filled.get("experiments")
    await filled.post("act", {"do": "stop", "target": "fe/faq-zh-qwen"})
    assert (await filled.api.get(EXPERIMENTS, "faq-zh-qwen"))["spec"]["suspend"] is True
    await filled.post("act", {"do": "resume", "target": "fe/faq-zh-qwen"})
    assert not (await filled.api.get(EXPERIMENTS, "faq-zh-qwen"))["spec"]["suspend"]


async def test_stop_and_keep_ends_the_jobs_that_have_not_ended(filled):
    await filled.get("experiments")
    await filled.post("act", {"do": "keep", "target": "fe/faq-zh-qwen"})
    stops = {
        job["metadata"]["name"][-1]: job["spec"].get("stop")
        for job in await filled.api.list(JOBS, "default")
        if job["metadata"]["name"].startswith("faq")
    }
    assert stops == {"a": None, "b": "keep", "c": "keep"}


async def test_retry_annotates_what_failed_and_nothing_else(filled):
    asked = await filled.get("act?do=retry&target=fe/contracts-long-context")
    assert "dtx retry fe/contracts-long-context" in asked and "kubectl patch finetunejobs" in asked
    await filled.get("experiments")
    await filled.post("act", {"do": "retry", "target": "fe/contracts-long-context"})
    annotated = [
        job["metadata"]["name"]
        for job in await filled.api.list(JOBS, "default")
        if job["metadata"].get("annotations", {}).get("datatunerx.io/retry")
    ]
    assert annotated == ["contracts-long-context-a"]
    assert "has nothing that failed" in await filled.get("act?do=retry&target=fe/support-tickets")


async def test_a_service_is_unloaded_and_loaded_again(filled):
    asked = await filled.get("act?do=stop&target=isvc/try-tickets")
    assert "kubectl scale isvc/try-tickets --replicas=0" in asked
    await filled.get("services")
    for do, replicas in (("stop", 0), ("resume", 1)):
        await filled.post("act", {"do": do, "target": "isvc/try-tickets"})
        assert (await filled.api.get(SERVICES, "try-tickets"))["spec"]["replicas"] == replicas
    assert "is not stopped" in await filled.get("act?do=resume&target=isvc/try-tickets")


async def test_a_list_offers_what_suits_its_rows(filled):
    def offered(page):
        return re.findall(r"act\?do=(\w+)", page.partition('class="selection"')[2])

    assert offered(await filled.get("jobs")) == ["stop", "keep", "resume", "retry", "delete"]
    assert offered(await filled.get("services")) == ["stop", "resume", "delete"]
    assert offered(await filled.get("hyperparameters")) == ["delete"]
    await filled.login("v" * 40)
    for path, compares in (("jobs", True), ("models", True), ("hyperparameters", False)):
        page = await filled.get(path)
        assert offered(page) == [] and ('class="selection"' in page) == compares == ("data-all" in page)


async def test_delete_says_in_numbers_what_is_lost(filled):
    asked = await filled.get("act?do=delete&target=fe/support-tickets")
    assert "4 jobs, 8 checkpoints of 75.2 MB in all, 56 min of training" in asked
    await filled.get("experiments")
    await filled.post("act", {"do": "delete", "target": "fe/support-tickets"})
    left = {each["metadata"]["name"] for each in await filled.api.list(EXPERIMENTS, "default")}
    assert "support-tickets" not in left and "faq-zh-qwen" in left


async def test_a_clone_is_made_as_it_was_edited_and_faults_name_their_field(filled):
    page = await filled.get("edit?from=fe/support-tickets")
    assert "name: support-tickets-copy" in page and "status:" not in page
    text = "apiVersion: datatunerx.io/v1beta1\n"
    text += "kind: FinetuneExperiment\nmetadata: {name: next}\nspec: {jobz: []}\n"
    answer = await filled.post("edit", {"yaml": text}, code=422)
    assert "jobz" in answer.text
    good = "matrix: {llms: [smollm2], datasets: [support-tickets], hyperparameters: [tickets]}"
    answer = await filled.post("edit", {"yaml": text.replace("jobz: []", good)})
    assert answer.headers["hx-redirect"].endswith("/experiments/next")
    assert (await filled.api.get(EXPERIMENTS, "next"))["spec"]["matrix"]["llms"] == ["smollm2"]
