"""BLEU and ROUGE agree with the programs everyone quotes, and know more alphabets than one."""

import subprocess
import sys

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from datatunerx.scoring import Prediction, score
from datatunerx.scoring.statistics import resample
from datatunerx.scoring.text import bleu, bleu_tokenizer

ENGLISH = [
    ("the cat sat on the mat", "the cat is on the mat"),
    ("there is a dog in the garden today", "a dog is in the garden"),
    ("nothing at all alike", "quite another sentence here"),
    ("exactly the same words again, my friend.", "exactly the same words again, my friend."),
]
CHINESE = [
    ("我喜欢机器学习和自然语言处理", "我很喜欢机器学习与自然语言处理"),
    ("今天天气不错", "今天的天气很好"),
    ("请重置您的密码", "请您重置密码，然后重新登录"),
]


def predict(pairs):
    return [Prediction(row, "q", reference, answer) for row, (answer, reference) in enumerate(pairs)]


def value(pairs, name, **options):
    return score(predict(pairs), [name], options={name: options} if options else None)[name].value


@pytest.mark.parametrize(("pairs", "tokenizer"), [(ENGLISH, "13a"), (ENGLISH[:3], "13a"), (CHINESE, "zh")])
def test_bleu_is_what_sacrebleu_says_with_the_tokenizer_of_the_language(pairs, tokenizer):
    theirs = BLEU(tokenize=tokenizer).corpus_score([a for a, _ in pairs], [[r for _, r in pairs]]).score
    assert theirs > 1
    assert value(pairs, "bleu") == pytest.approx(theirs, rel=1e-9)


def test_bleu_of_resampled_rows_is_what_sacrebleu_says_of_the_same_rows():
    statistics = bleu(predict(ENGLISH), {})
    counts = resample(np.eye(len(ENGLISH)), seed=1, resamples=20)
    ours = statistics.value(counts @ statistics.rows_NS)
    for mine, drawn in zip(ours, counts.astype(int), strict=True):
        rows = [pair for pair, times in zip(ENGLISH, drawn, strict=True) for _ in range(times)]
        theirs = BLEU(effective_order=True).corpus_score([a for a, _ in rows], [[r for _, r in rows]]).score
        assert mine == pytest.approx(theirs, rel=1e-9)


def test_one_word_answers_that_are_all_right_have_the_full_bleu():
    assert value([("yes", "yes"), ("no", "no")], "bleu") == pytest.approx(100.0)
    assert value([("yes", "no"), ("no", "yes")], "bleu") == 0.0
    assert value([("", "no"), ("", "yes")], "bleu") == 0.0
    # two of three words; no pair of one, which counts as half of one
    assert value([("a b", "a c"), ("d", "d")], "bleu") == pytest.approx(100 * (2 / 3 * 1 / 2) ** 0.5)


def test_the_references_alone_choose_the_tokenizer():
    assert bleu_tokenizer(["hello there", "general"]) == "13a"
    assert bleu_tokenizer(["请打开 Settings 页面，然后点击 Reset"]) == "zh"
    assert bleu_tokenizer(["パスワードを再設定してください"]) == "char"
    assert bleu_tokenizer(["The word 茶 means tea in Chinese."]) == "13a"
    assert bleu_tokenizer([]) == "13a"


@pytest.mark.parametrize("name", ["bleu", "rouge-1", "rouge-2", "rouge-l"])
def test_chinese_answers_that_share_words_with_their_reference_do_not_score_zero(name):
    found = score(predict(CHINESE), [name])[name]
    assert found.value > 0.2
    assert found.low < found.value < found.high


def test_rouge_is_the_f_measure_worked_out_by_hand():
    pair = [("the cat sat on the mat", "the cat is on the mat")]
    assert value(pair, "rouge-1") == pytest.approx(5 / 6)
    assert value(pair, "rouge-2") == pytest.approx(3 / 5)
    assert value(pair, "rouge-l") == pytest.approx(5 / 6)
    # answer of 3, reference of 5 characters, subsequence of 3: P 1, R 3/5
    assert value([("今天好", "今天天气好")], "rouge-l") == pytest.approx(2 * 1 * 0.6 / 1.6)
    # words of the answer: 机器 学习; of the reference: 学习 机器
    assert value([("机器学习", "学习机器")], "rouge-2") == pytest.approx(2 / 3)


def test_chinese_rouge_by_words_sees_words():
    pair = [("我喜欢学习", "我喜欢机器")]
    assert value(pair, "rouge-1") == pytest.approx(3 / 5)
    assert value(pair, "rouge-1", chinese="words") == pytest.approx(2 / 3)


def test_rouge_of_english_is_that_of_the_rouge_score_package():
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for ours, theirs in (("rouge-1", "rouge1"), ("rouge-2", "rouge2"), ("rouge-l", "rougeL")):
        mean = np.mean([scorer.score(r, a)[theirs].fmeasure for a, r in ENGLISH])
        assert value(ENGLISH, ours) == pytest.approx(mean)


@pytest.mark.parametrize("name", ["rouge-1", "rouge-l"])
def test_other_alphabets_have_words_too(name):
    assert value([("кошка сидит дома", "кошка спит дома")], name) == pytest.approx(2 / 3)


def test_a_reference_without_a_word_counts_neither_for_nor_against():
    found = score(predict([("a b", "a b"), ("something", "!!!")]), ["rouge-1"])["rouge-1"]
    assert (found.value, found.n) == (1.0, 1)
    assert score(predict([("something", "!!!")]), ["rouge-1"])["rouge-1"].value is None


def test_the_heavy_libraries_are_loaded_only_by_the_metrics_that_need_them():
    code = (
        "import sys; from datatunerx.scoring import Prediction, score\n"
        "score([Prediction(0, 'q', 'a', 'a')] * 2, ['exact-match', 'f1', 'perplexity'])\n"
        "heavy = {'sacrebleu', 'rouge_score', 'jieba', 'torch', 'transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
