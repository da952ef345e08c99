"""BLEU and ROUGE for whatever language the references are in.

sacrebleu, rouge-score and jieba are loaded when first used: a run that scores labels needs none of them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from datatunerx.scoring.errors import Unmeasurable
from datatunerx.scoring.predictions import Prediction
from datatunerx.scoring.statistics import Array, Statistics, divide, ratio

_ORDER = 4
_KANA = "\u3040-\u30ff"
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_IDEOGRAPHS = re.compile(f"[{_HAN}]")
_KANA_LETTERS = re.compile(f"[{_KANA}]")
_LETTERS = re.compile(r"[^\W\d_]")
_HAN_RUN_OR_WORD = re.compile(f"([{_HAN}]+)|([{_KANA}])|((?:(?![{_HAN}{_KANA}])[^\\W_])+)")


def bleu_tokenizer(references: Sequence[str]) -> str:
    """The sacrebleu tokenizer for these references: `zh` for Chinese, `char` for Japanese, else `13a`.

    The references alone decide, so every model is measured with the same one.
    """
    joined = "".join(references)
    letters = len(_LETTERS.findall(joined))
    if len(_KANA_LETTERS.findall(joined)) > letters / 10:
        return "char"
    # Chinese prose that quotes English names stays Chinese: an ideograph carries more than a letter
    return "zh" if len(_IDEOGRAPHS.findall(joined)) > letters / 5 else "13a"


def bleu(predictions: Sequence[Prediction], options: Mapping[str, Any]) -> Statistics:
    """Rows of (answer length, reference length, matched n-grams (4), n-grams of the answer (4))."""
    from sacrebleu.metrics.bleu import BLEU

    tokenizer = options.get("tokenizer") or bleu_tokenizer([p.reference for p in predictions])
    # only its counts are used; effective_order keeps it from warning about each sentence
    scorer = BLEU(tokenize=tokenizer, effective_order=True)
    rows = []
    for prediction in predictions:
        counted = scorer.sentence_score(prediction.answer, [prediction.reference])
        rows.append((counted.sys_len, counted.ref_len, *counted.counts, *counted.totals))
    rows_NS = np.array(rows, dtype=np.float64)
    if not rows_NS[:, 1].any():
        raise Unmeasurable("no reference has a word")
    return Statistics(rows_NS, corpus_bleu, len(rows))


def corpus_bleu(sums_BS: Array) -> Array:
    """BLEU in points (B,) from summed counts (B, 10), with sacrebleu's exponential smoothing.

    Orders that occur in no answer are left out (its `effective_order`): a corpus of one-word answers has no
    4-grams, and would score 0 for perfect answers.
    """
    answer_B, reference_B = sums_BS[:, 0], sums_BS[:, 1]
    matched_BO, total_BO = sums_BS[:, 2 : 2 + _ORDER], sums_BS[:, 2 + _ORDER :]
    occurs_BO = total_BO > 0
    unmatched_BO = occurs_BO & (matched_BO == 0)
    # the k-th order without a match counts as 2^-k of a match
    smooth_BO = 0.5 ** np.cumsum(unmatched_BO, axis=1)
    share_BO = divide(np.where(unmatched_BO, smooth_BO, matched_BO), total_BO, 1.0)
    orders_B = np.maximum(occurs_BO.sum(axis=1), 1)
    log_mean_B = np.log(np.where(occurs_BO, share_BO, 1.0)).sum(axis=1) / orders_B
    brevity_B = np.minimum(0.0, 1.0 - divide(reference_B, answer_B, np.inf))
    score_B = 100.0 * np.exp(log_mean_B + brevity_B)
    score_B = np.where(matched_BO.any(axis=1), score_B, 0.0)
    return np.where(reference_B > 0, score_B, np.nan)


def _rouge(predictions: Sequence[Prediction], options: Mapping[str, Any], kind: str) -> Statistics:
    """Rows of (F-measure, 1); a reference without a word cannot be recalled, so its row does not count."""
    from rouge_score.rouge_scorer import RougeScorer

    tokenizer = _Words(_chinese_words() if options.get("chinese") == "words" else list)
    scorer = RougeScorer([kind], tokenizer=tokenizer)
    rows_NS = np.zeros((len(predictions), 2))
    for row, prediction in enumerate(predictions):
        # ROUGE-2 of a one-word reference is as undefined as ROUGE-1 of an empty one
        if len(tokenizer.tokenize(prediction.reference)) >= (2 if kind == "rouge2" else 1):
            scored = scorer.score(prediction.reference, prediction.answer)
            rows_NS[row] = scored[kind].fmeasure, 1.0
    count = int(rows_NS[:, 1].sum())
    if not count:
        raise Unmeasurable("no reference has words enough for this ROUGE")
    return Statistics(rows_NS, ratio, count)


rouge_1 = partial(_rouge, kind="rouge1")
rouge_2 = partial(_rouge, kind="rouge2")
rouge_l = partial(_rouge, kind="rougeL")


class _Words:
    """What rouge-score asks for its tokens; its own tokenizer knows a-z and 0-9 alone."""

    def __init__(self, cut_han: Callable[[str], list[str]]) -> None:
        self._cut_han = cut_han

    def tokenize(self, text: str) -> list[str]:
        tokens: list[str] = []
        for han, kana, word in _HAN_RUN_OR_WORD.findall(text.lower()):
            tokens.extend(self._cut_han(han) if han else [kana or word])
        return tokens


@cache
def _chinese_words() -> Callable[[str], list[str]]:
    import jieba

    tokenizer = jieba.Tokenizer()
    # Read the dictionary here: left alone, jieba trusts a marshal file in the shared temporary folder
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    cut: Callable[[str], list[str]] = tokenizer.lcut
    return cut
