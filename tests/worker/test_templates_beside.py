"""What a checkpoint holds beside its adapter writes the very tokens that it was trained and scored with."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from datatunerx.data import ChatTemplate, built_in_names
from datatunerx.data.registry import built_ins
from datatunerx.worker.inspect_model import _template
from datatunerx.worker.prepare import files_beside

TALKS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Wo ist 我的订单? \n"}],
    [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"}, {"role": "user", "content": " c"},
    ],
]  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "look_up", "description": "é", "parameters": {}}}]
CALL = {
    "id": "123456789",
    "type": "function",
    "function": {"name": "look_up", "arguments": {"order": "7 <é>"}},
}
CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "123456789", "name": "look_up", "content": '{"place": "Oslo"}'},
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tokenizer with every control token there is, and a template of its own in its config."""
    folder = tmp_path_factory.mktemp("model")
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(sorted(alphabet))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    needed = {token for one in built_ins().values() for token in one.tokens} | {"<s>", "</s>"}
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in sorted(needed)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
        "pad_token": "</s>", "chat_template": built_ins()["zephyr"].template,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
def test_another_reader_of_the_checkpoint_writes_the_same_tokens_for_every_template(model, tmp_path):
    from transformers import AutoTokenizer

    for name in built_in_names():
        trained = ChatTemplate.load(model, name)
        folder = tmp_path / name
        folder.mkdir()
        for file, content in files_beside(model, trained).items():
            (folder / file).write_bytes(content)
        assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())
        theirs, again = AutoTokenizer.from_pretrained(folder), ChatTemplate.load(folder)
        assert again.source == "chat_template.jinja" and again.text == trained.text
        with_tools = [(CALLED, TOOLS)] if "tool_calls" in trained.text else []
        for talk, tools in [*((talk, []) for talk in TALKS), *with_tools]:
            ids = trained.prompt_ids(talk, tools)
            assert again.prompt_ids(talk, tools) == ids, name
            made = theirs.apply_chat_template(
                talk, tools=tools or None, tokenize=True, add_generation_prompt=True, return_dict=False
            )
            assert made == ids, name
            answer = [*talk, {"role": "assistant", "content": "Gewiss."}]
            assert trained.encode(answer, tools).ids.tolist()[: len(ids)] == ids, name


def test_another_template_than_the_models_own_is_warned_of_by_both_names(model):
    text, source, warnings = _template(model, "qwen")
    assert (text, source) == (built_ins()["qwen"].template, "built-in qwen")
    (warning,) = warnings
    assert "built-in qwen" in warning and "the model's own (tokenizer_config.json)" in warning
    assert _template(model, None)[1:] == ("tokenizer_config.json", [])
    assert _template(model, "zephyr")[2] == []  # the same as its own
