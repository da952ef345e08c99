"""Every page answers with what it should show, whoever asks, in both languages."""

import pytest

LISTS = [
    "experiments",
    "jobs",
    "datasets",
    "models",
    "hyperparameters",
    "plugins",
    "services",
    "devices",
    "events",
]
DETAILS = [
    "experiments/support-tickets",
    "experiments/support-tickets?tab=differences",
    "experiments/support-tickets?tab=config",
    "experiments/faq-zh-qwen",
    "experiments/contracts-long-context",
    *(
        f"jobs/support-tickets-r8-lr2e-3?tab={tab}"
        for tab in ("overview", "charts", "logs", "samples", "scored", "config", "files")
    ),
    "jobs/contracts-long-context-a",
    "jobs/faq-zh-qwen-b",
    "datasets/support-tickets",
    "datasets/contracts",
    "models/llm/smollm2",
    "models/ckpt/support-tickets-r8-lr2e-3",
    "hyperparameters/tickets",
    "hyperparameters/r8-lr1e-3?beside=r16-lr2e-3",
    "plugins/dp/from-tickets",
    "services/try-tickets",
    "devices/run-b",
    "settings",
    "new",
    *(f"new/draft-open/{step}" for step in range(1, 5)),
    *(f"new/draft-runs/{step}" for step in range(1, 7)),
    "new/draft-done/5",
    "new/draft-done/6",
    "edit?from=fe/support-tickets",
    "edit?from=ckpt/support-tickets-r8-lr2e-3",
    "palette?q=tickets",
    "act?do=delete&target=fe/support-tickets",
]


@pytest.mark.parametrize("path", LISTS)
async def test_an_empty_list_says_what_belongs_there(console, path):
    await console.login()
    assert 'class="empty"' in await console.get(path)


async def test_every_page_answers_and_escapes_what_others_wrote(filled):
    for path in LISTS + DETAILS:
        page = await filled.get(path)
        assert "<script>document" not in page and 'onerror="' not in page, path


async def test_experiments_are_a_table_or_cards_and_the_url_says_which(filled):
    assert '<table class="stack">' in await filled.get("experiments")
    page = await filled.get("experiments?view=cards&state=Failed&sort=-age")
    assert '<table class="stack cards">' in page
    assert "?view=cards&amp;sort=-age" in page  # another state of the same view
    assert '<input type="hidden" name="view" value="cards">' in page  # what is typed into the filter, too
