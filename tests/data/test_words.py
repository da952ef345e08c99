"""Tokens made word by word are those of the whole text, or are not made word by word."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

from datatunerx.data import ChatTemplate, built_in_names
from datatunerx.data.formats import Conversation
from datatunerx.data.registry import built_ins
from datatunerx.data.templates import by_words
from datatunerx.data.words import PROBES, words_of

ODD = st.text(
    st.characters(codec="utf-8", exclude_characters="\0")
    | st.sampled_from(list("   \n\n\tab'1.<|>\u00a0\u3000\u0301")),
    max_size=40,
)
SAID = ODD.filter(lambda text: text.strip() != "")


@pytest.fixture(scope="module")
def chats(tokenizer_dir: Path, tmp_path_factory) -> dict[str, ChatTemplate]:
    """Every built-in template, on a byte-level tokenizer that has all their tokens."""
    folder = tmp_path_factory.mktemp("all")
    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    wanted = sorted({"<s>", "</s>", *(token for one in built_ins().values() for token in one.tokens)})
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in wanted])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return {name: ChatTemplate.load(folder, name) for name in built_in_names()}


def slowly(chat: ChatTemplate, item):
    return chat._label(item, chat._tokens(item))


@pytest.mark.parametrize("name", built_in_names())
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(SAID, min_size=2, max_size=4).filter(lambda texts: len(texts) % 2 == 0))
def test_every_template_gives_the_same_examples_word_by_word(chats, name, texts):
    chat = chats[name]
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    rendered = [one for one in chat.rendered_batch([Conversation(turns)]) if hasattr(one, "text")]
    for item, quick in zip(rendered, by_words(rendered, chat.encoder, set(chat.stop_ids)), strict=True):
        if quick is not None:
            slow = slowly(chat, item)
            assert quick.ids.tolist() == slow.ids.tolist()
            assert quick.labels.tolist() == slow.labels.tolist()


def test_plain_answers_are_made_word_by_word_by_most_templates(chats):
    turns = [
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "I am a dog.\nWoof"},
    ]
    quick = []
    for name, chat in chats.items():
        rendered = chat.rendered_batch([Conversation(turns)])
        quick += [name for one in by_words(rendered, chat.encoder, set(chat.stop_ids)) if one is not None]
    assert "chatml" in quick and len(quick) >= len(chats) // 2, quick


def trained(pre, **more) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**more))
    tokenizer.pre_tokenizer = pre
    tokenizer.train_from_iterator([*PROBES] * 5, trainers.BpeTrainer(vocab_size=600, show_progress=False))
    return tokenizer


@pytest.mark.parametrize("name", ["joins words", "prefixes a space", "takes tokens with what is beside them"])
def test_a_tokenizer_that_may_join_what_a_space_parts_is_left_alone(name, tokenizer_dir):
    if name == "joins words":
        tokenizer = trained(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    elif name == "prefixes a space":
        tokenizer = trained(pre_tokenizers.ByteLevel(add_prefix_space=True))
    else:
        document = json.loads((tokenizer_dir / "tokenizer.json").read_text())
        document["added_tokens"][0]["lstrip"] = True
        tokenizer = Tokenizer.from_str(json.dumps(document))
    assert words_of(tokenizer, tokenizer.to_str()) is None


def test_words_that_are_forgotten_are_found_again(tokenizer_dir, monkeypatch):
    tokenizer = ChatTemplate.load(tokenizer_dir).encoder._plain
    words = words_of(tokenizer, tokenizer.to_str())
    assert words is not None
    monkeypatch.setattr("datatunerx.data.words.MAX_WORDS", 5)
    texts = [f"the quick fox {n} jumps over {'x' * 100} and the dog" for n in range(20)]
    for text in texts:
        assert words.ids([text, text]) == [np.array(tokenizer.encode(text).ids, np.int32).tobytes()] * 2
    assert len(words._first) + len(words._after) <= 20


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(
        st.text(st.sampled_from(list("   \n\tab'1.\u00a0\u3000\u0301\x1c")), max_size=12), min_size=1
    )
)
def test_texts_with_odd_spaces_have_the_ids_of_the_whole(pieced, texts):
    tokenizer, words = pieced
    assert words.ids(texts) == [np.array(tokenizer.encode(text).ids, np.int32).tobytes() for text in texts]


@pytest.fixture(scope="module")
def pieced():
    """Of the kind that Qwen and Llama 3 use: line breaks and runs of spaces are pieces of their own."""
    split = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    pre = [
        pre_tokenizers.Split(Regex(split), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer = trained(pre_tokenizers.Sequence(pre))
    words = words_of(tokenizer, tokenizer.to_str())
    assert words is not None
    return tokenizer, words
