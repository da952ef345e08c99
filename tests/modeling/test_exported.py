"""An exported model that answers otherwise is counted, and its logits' distance is told."""

import torch

from datatunerx.modeling.exported import Asked, compare

STOP = 3


def logits(*tokens: int) -> torch.Tensor:
    """Of a model over four words that is sure of these tokens, one after the other."""
    found = torch.zeros(len(tokens), 4)
    found[range(len(tokens)), tokens] = 8.0
    return found


def asked(*answer: int, stopped: bool = True) -> Asked:
    return Asked([0], answer, stopped, logits(*answer, STOP if stopped else 0))


def test_an_answer_differs_by_one_token_or_by_where_it_ends():
    ones = [asked(1, 2), asked(1, 2), asked(1, 2), asked(2, stopped=False)]
    said = [logits(1, 2, STOP), logits(1, 1, STOP), logits(1, 2, 0), logits(2, 1)]
    found = compare(ones, lambda one: said[next(n for n, other in enumerate(ones) if other is one)], [STOP])
    assert (found.prompts, found.differing, found.max_logit_difference) == (4, 2, 8.0)


def test_the_same_answers_with_other_logits_differ_in_nothing_but_those():
    one = asked(1, 2, 1)
    found = compare([one], lambda asked: asked.logits_LV - 0.25, [STOP])
    assert (found.prompts, found.differing, found.max_logit_difference) == (1, 0, 0.25)


def test_words_that_only_one_of_both_has_are_left_out():
    one = asked(1, 2)
    wider = torch.nn.functional.pad(one.logits_LV, (0, 2), value=-50.0)
    assert compare([one], lambda asked: wider, [STOP]).max_logit_difference == 0.0
