"""The example's rows are what its README says: strict answers, known labels, nothing twice or leaked."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "support-tickets"
SPLITS = ("train", "validate", "test")
CATEGORIES = {"billing", "delivery", "account", "fault", "how-to", "idea"}
PRIORITIES = {"high", "normal", "low"}
PRODUCTS = {"camera", "doorbell", "thermostat", "vacuum", "app"}


def rows(split):
    lines = (FOLDER / f"{split}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


TICKETS = [
    (split, row[1]["content"], json.loads(row[2]["content"])) for split in SPLITS for row in rows(split)
]


def words(text):
    return set(re.findall(r"\w+", text.lower()))


def test_the_splits_are_large_enough_to_tell_models_apart():
    sizes = {split: len(rows(split)) for split in SPLITS}
    assert sizes == {"train": 243, "validate": 30, "test": 82}


@pytest.mark.parametrize("split", SPLITS)
def test_every_row_is_system_user_assistant_with_one_strict_json_line(split):
    for system, user, assistant in rows(split):
        assert [system["role"], user["role"], assistant["role"]] == ["system", "user", "assistant"]
        assert system["content"] == "Answer with one JSON line: category, priority, product."
        answer = json.loads(assistant["content"])
        assert list(answer) == ["category", "priority", "product"]
        assert assistant["content"] == json.dumps(answer, separators=(",", ":"))
        assert answer["category"] in CATEGORIES
        assert answer["priority"] in PRIORITIES
        assert answer["product"] in PRODUCTS


def test_every_ticket_names_its_product_and_no_other():
    for _, ticket, answer in TICKETS:
        named = {product for product in PRODUCTS if re.search(rf"\b{product}s?\b", ticket.lower())}
        assert named == {answer["product"]}, ticket


def test_no_ticket_is_another_one_in_disguise():
    for (_, one, _), (_, other, _) in combinations(TICKETS, 2):
        shared, either = words(one) & words(other), words(one) | words(other)
        assert len(shared) / len(either) < 0.6, (one, other)


def test_no_label_is_so_frequent_that_guessing_pays():
    for field, known in (("category", CATEGORIES), ("priority", PRIORITIES), ("product", PRODUCTS)):
        for split in SPLITS:
            counts = Counter(answer[field] for where, _, answer in TICKETS if where == split)
            assert set(counts) == known
            assert max(counts.values()) <= 1.6 * sum(counts.values()) / len(known), (split, counts)


def test_tickets_are_short_enough_for_a_quick_demo():
    lengths = [len(ticket.split()) for _, ticket, _ in TICKETS]
    assert min(lengths) >= 6
    assert max(lengths) <= 35
