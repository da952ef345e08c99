"""An action says what it will send and what is lost; then it does that and nothing else."""

from datatunerx.client.api import Plural

EXPERIMENTS = Plural("datatunerx.io", "v1beta1", "finetuneexperiments")
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


async def test_retry_makes_an_experiment_of_the_jobs_that_failed(filled):
    await filled.get("experiments")
    await filled.post("act", {"do": "retry", "target": "fe/contracts-long-context"})
    made = [e for e in await filled.api.list(EXPERIMENTS, "default") if "-retry-" in e["metadata"]["name"]]
    assert [[job["hyperparameter"]["ref"] for job in each["spec"]["jobs"]] for each in made] == [
        ["r16-lr2e-3"]
    ]


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
