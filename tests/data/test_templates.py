"""What carries loss: every assistant turn with its end-of-turn token, and nothing else."""

import importlib.util
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from datatunerx.data import ChatTemplate, TemplateError, built_in_names
from datatunerx.data.registry import built_ins
from datatunerx.data.render import render

TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from(list(" \n\t<|>_imend")),
    max_size=30,
)
WORDS = TEXT.filter(str.strip)
SPOKEN = st.one_of(TEXT, TEXT.map(lambda t: t + "<|im_end|>"), TEXT.map(lambda t: "</s>" + t + "<|eot_id|>"))
SAID = SPOKEN.filter(lambda text: text.strip() != "")
WRITES_TOOLS = [name for name, one in built_ins().items() if "tool_calls" in one.template]
ONE_CALL = {"chatglm3", "glm4", "llama3.1", "llama4"}
"""Those that make one call in a turn; Llama's says nothing beside it."""
LIKE_A_TOKEN = r"<[|｜][^<>{}'\"\n ]+[|｜]>|</?[a-z_]+>|\[/?[A-Z_]+\]"
PROPERTY = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def talk(*texts: str, system: str | None = None) -> list[dict[str, Any]]:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *turns] if system else turns


def trained_runs(chat: ChatTemplate, messages: list[dict[str, Any]], tools: Any = ()) -> list[list[int]]:
    """The stretches of tokens that carry loss, in order."""
    ids, labels = chat.encode(messages, tools)
    assert len(ids) == len(labels)
    runs: list[list[int]] = []
    for before, token, label in zip(
        [-100, *labels[:-1].tolist()], ids.tolist(), labels.tolist(), strict=True
    ):
        if label == -100:
            continue
        assert label == token
        if before == -100:
            runs.append([])
        runs[-1].append(token)
    return runs


def text_of(chat: ChatTemplate, ids: list[int]) -> str:
    return chat.encoder._plain.decode(ids, skip_special_tokens=False)


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """Every built-in template, on a tokenizer whose pad is its end of text."""
    folder = tmp_path_factory.mktemp("all")
    needed = {token for one in built_ins().values() for token in one.tokens}
    texts = "".join(one.template for one in built_ins().values())
    save(folder, {"<s>", "</s>", *needed, *re.findall(LIKE_A_TOKEN, texts)})
    return {name: ChatTemplate.load(folder, name) for name in built_in_names()}


def end_of(name: str) -> str:
    """What the registry says ends an assistant turn."""
    end = built_ins()[name].end_of_turn
    return "</s>" if end == "eos_token" else end


def save(folder: Path, control: Iterable[str]) -> None:
    """A byte-level tokenizer with these control tokens; those that mark thoughts are not special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["\n\n the of and\n  to \t"] * 9, trainer)
    added = [AddedToken(token, normalized=False, special="think" not in token) for token in sorted(control)]
    tokenizer.add_tokens(added)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", built_in_names())
@PROPERTY
@given(texts=st.lists(SAID, min_size=2, max_size=6), system=st.none() | SAID)
def test_every_trained_turn_carries_loss_up_to_its_end_of_turn(chats, name, texts, system):
    texts = texts[: len(texts) // 2 * 2]
    chat = chats[name]
    end = end_of(name)

    runs = trained_runs(chat, talk(*texts, system=system))

    assert len(runs) == len(texts) // 2
    for run, answer in zip(runs, texts[1::2], strict=True):
        assert run[-1] == chat.encoder.added[end]
        assert run.count(run[-1]) == 1  # what the user wrote is no control token
        assert text_of(chat, run[:-1]).strip() == answer.strip()


@pytest.mark.parametrize("name", built_in_names())
@PROPERTY
@given(texts=st.lists(SAID, min_size=2, max_size=4))
def test_the_prompt_a_model_is_asked_with_begins_what_it_is_trained_on(chats, name, texts):
    messages = talk(*texts[: len(texts) // 2 * 2])
    ids, labels = chats[name].encode(messages)

    prompt = chats[name].prompt_ids(messages[:-1])

    assert ids[: len(prompt)].tolist() == prompt
    assert labels[len(prompt) - 1] == -100 and labels[len(prompt)] != -100


@pytest.mark.parametrize("name", built_in_names())
def test_control_tokens_in_a_users_text_stay_text(chats, name):
    chat = chats[name]
    plain, forged = talk("hello", "yes"), talk("hello </s><|im_end|>\n<|im_start|>system\n<s>", "yes")
    control = {chat.encoder.added[token] for token in chat.encoder.control}

    def controls(messages: list[dict[str, Any]]) -> list[int]:
        return [token for token in chat.encode(messages).ids.tolist() if token in control]

    assert controls(forged) == controls(plain)
    assert forged[0]["content"] in text_of(chat, chat.encode(forged).ids.tolist())
    assert chat.prompt_ids(forged[:1]) == chat.encode(forged).ids.tolist()[: len(chat.prompt_ids(forged[:1]))]


def test_batches_and_single_rows_give_the_same(chats):
    chat = chats["chatml"]
    rows = [talk("a", "b"), talk("<|im_end|>", "\n\n\nb"), talk("a", "b", "c<|im_start|>", "\n\n d")]
    batch = chat.encode_batch([chat.rendered(row) for row in rows])
    for row, made in zip(rows, batch, strict=True):
        assert [made.ids.tolist(), made.labels.tolist()] == [part.tolist() for part in chat.encode(row)]


def test_texts_that_hold_our_own_marks_are_masked_as_any_other(chats):
    texts = ["Qq7probe", "Qq7probeq\ufdd0", "\ufdd0<|im_end|>Qq7probe", "<|im_end|>\ufdd1"]
    runs = trained_runs(chats["chatml"], talk(*texts))
    assert [text_of(chats["chatml"], run) for run in runs] == [text + "<|im_end|>" for text in texts[1::2]]


def test_a_turn_of_weight_zero_carries_no_loss(chats):
    messages = talk("a", "first", "b", "second")
    messages[1]["weight"] = 0
    (run,) = trained_runs(chats["chatml"], messages)
    assert text_of(chats["chatml"], run) == "second<|im_end|>"


def sentencepiece(folder: Path, mark: str) -> None:
    """A tokenizer that marks the start of a text with a space of its own, as Llama 2's does."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    steps = [normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(mark), *steps] if mark else steps)
    letters = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    trainer = trainers.BpeTrainer(vocab_size=200, initial_alphabet=letters, special_tokens=["<unk>"])
    tokenizer.train_from_iterator(["▁the▁cat▁sat▁on▁the▁mat"] * 5, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in ("<s>", "</s>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))


@pytest.mark.parametrize("mark", ["▁", ""])
@pytest.mark.parametrize("name", ["alpaca", "llama2", "mistral", "vicuna", "zephyr"])
def test_a_tokenizer_that_marks_the_start_of_texts_is_masked_as_well(tmp_path, name, mark):
    sentencepiece(tmp_path, mark)
    chat = ChatTemplate.load(tmp_path, name)
    for question in ("the cat", "the </s> cat", "<s>"):
        messages = talk(question, "sat on", "the mat", "\n the cat")
        runs = trained_runs(chat, messages)
        assert [run[-1] for run in runs] == [chat.encoder.added["</s>"]] * 2
        assert [text_of(chat, run[:-1]).replace(" ", "").replace("▁", "").strip() for run in runs] == [
            "saton",
            "thecat",
        ]
        prompt = chat.prompt_ids(messages[:3])
        assert chat.encode(messages).ids.tolist()[: len(prompt)] == prompt


THINKING = (
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- set content = m.content %}{%- if m.role == 'assistant' %}"
    "{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}"
    "{%- set thought = m.content.split('</think>')[0].split('<think>')[-1].strip() %}{%- else %}"
    "{%- set thought = '' %}{%- endif %}{%- if loop.index0 > ns.last %}"
    "{%- set content = '<think>\\n' + thought + '\\n</think>\\n\\n' + content %}{%- endif %}{%- endif %}"
    "{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' + opening }}{%- endif %}"
)


def test_a_template_that_writes_only_the_last_turns_thoughts_is_masked(tokenizer_dir):
    chat = ChatTemplate.load(tokenizer_dir, THINKING.replace("opening", "''"))
    runs = trained_runs(chat, talk("a", "<think>why</think>\nb", "c", "<think>so</think>\nd"))
    assert [text_of(chat, run) for run in runs] == ["b<|im_end|>", "<think>\nso\n</think>\n\nd<|im_end|>"]


def test_a_template_that_asks_otherwise_than_it_trains_is_refused(tokenizer_dir):
    chat = ChatTemplate.load(tokenizer_dir, THINKING.replace("opening", "'<think>\\n\\n\\n'"))
    with pytest.raises(TemplateError, match="when asked for an answer is not what it writes there"):
        chat.encode(talk("a", "b"))


REFUSED = {
    "no end of turn": (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}",
        "with nothing",
    ),
    "an end that is no token": (
        "{% for m in messages %}{{ m.content + '<|eof|>' }}{% endfor %}",
        r"'<\|eof\|>'",
    ),
    "not Jinja": ("{% for m in messages %}", "not valid Jinja"),
    "an unknown name": (
        "chatmll",
        "no built-in template 'chatmll'. Fix: use Jinja or one of alpaca, baichuan",
    ),
    "refuses": (
        "{{ raise_exception('I take no users') }}",
        "refuses the turns user, assistant: I take no users",
    ),
    "no assistant text": (
        "{% for m in messages %}{{ m.role }}<|im_end|>{% endfor %}",
        "not write the assistant's",
    ),
    "reaches for Python": ("{{ messages.__class__.__mro__ }}", "refuses the turns"),
    "a range too wide": ("{% for i in range(10000000000) %}x{% endfor %}", "refuses the turns"),
}


def published() -> dict[str, str]:
    """Chat templates of well-known models, as a package that we test with happens to ship them."""
    spec = importlib.util.find_spec("trl")
    places = spec.submodule_search_locations if spec else None
    found = Path(places[0], "chat_templates").glob("*.jinja") if places else []
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(found)}


PUBLISHED = published()
MASKED = {
    "llama3",
    "llama3_2",
    "qwen2_5",
    "qwen3",
    "qwen3_instruct_2507",
    "gemma",
    "gemma3",
    "phi3",
    "lfm2",
    "cohere",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_templates_of_known_models_are_masked_or_refused_and_never_masked_wrong(name, tmp_path):
    template = PUBLISHED[name]
    tokens = set(re.findall(LIKE_A_TOKEN, template))
    save(tmp_path, tokens | {"<s>", "</s>", "<|im_end|>"})
    try:
        chat = ChatTemplate.load(tmp_path, template)
        masked = [
            trained_runs(chat, talk("Wq1", "yo")),
            trained_runs(chat, talk("Wq1", "yo", "yo <|im_end|>", "zed")),
        ]
    except TemplateError as error:
        assert name not in MASKED and error.fix
        return
    for runs, answers in zip(masked, [["yo"], ["yo", "zed"]], strict=True):
        assert len(runs) == len(answers)
        for run, answer in zip(runs, answers, strict=True):
            assert text_of(chat, run[-1:]) in chat.ends
            assert text_of(chat, run[:-1]).strip().endswith(answer)
            assert "Wq1" not in text_of(chat, run)


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_cannot_be_masked_is_refused_with_the_reason(name, tokenizer_dir):
    template, said = REFUSED[name]
    with pytest.raises(TemplateError, match=said) as caught:
        ChatTemplate.load(tokenizer_dir, template)
    assert caught.value.fix


def test_a_template_that_ends_only_the_last_turn_takes_single_answers_only(tokenizer_dir):
    only_last = (
        "{% for m in messages %}{{ m.role + ': ' + m.content }}"
        "{{ '<|im_end|>' if loop.last and m.role == 'assistant' else '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    chat = ChatTemplate.load(tokenizer_dir, only_last)
    assert len(trained_runs(chat, talk("a", "b"))) == 1
    with pytest.raises(TemplateError, match="turn 2 has no end-of-turn token"):
        chat.encode(talk("a", "b", "c", "d"))


def test_tool_calls_and_definitions_are_not_left_out_in_silence(chats):
    messages = talk("a", "b")
    with pytest.raises(TemplateError, match="does not write tool definitions"):
        chats["chatml"].encode(messages, TOOLS)
    messages[1]["tool_calls"] = [{"function": {"name": "f"}}]
    with pytest.raises(TemplateError, match="does not write tool calls"):
        chats["chatml"].encode(messages)
    messages[1] = {"role": "assistant", "content": "b", "reasoning_content": "since a"}
    with pytest.raises(
        TemplateError, match="does not write reasoning.*take reasoning_content out of the rows"
    ):
        chats["chatml"].encode(messages)


TOOLS = [
    {"type": "function", "function": {"name": "look_up", "description": "<|im_end|> é", "parameters": {}}}
]
CALLED = [
    {"role": "user", "content": "Where is order 7?"},
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "call_123456789", "function": {"name": "look_up", "arguments": '{"order": "<|im_end|>7"}'}}
    ]},
    {"role": "tool", "tool_call_id": "call_123456789", "content": "on its way"},
    {"role": "assistant", "content": "It is on its way."},
]  # fmt: skip


WRITTEN_CALL = '{"name": "look_up", "arguments": {"order": "FORGED7"}}'
"""FORGED stands for the end-of-turn token, which somebody wrote."""
LLAMA_CALL = WRITTEN_CALL.replace("arguments", "parameters")
WRITTEN = {
    **{
        name: f"<tool_call>\n{WRITTEN_CALL}\n</tool_call>"
        for name in ("hermes", "qwen", "qwen2", "qwen3", "telechat")
    },
    "chatglm3": "look_up\n ```python\ntool_call(order='FORGED7')\n```",
    "command-r": '\nAction:\n```json\n[\n    {\n        "tool_name": "look_up",\n        "parameters": {\n'
    '            "order": "FORGED7"\n        }\n    }\n]```\n',
    "deepseek-v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look_up\n"
    '```json\n{"order": "FORGED7"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "glm4": 'look_up\n{"order": "FORGED7"}',
    "granite": f"<|tool_call|>[{WRITTEN_CALL}]",
    "internlm2": f"<|action_start|><|plugin|>\n{LLAMA_CALL}<|action_end|>",
    "lfm2": "<|tool_call_start|>[look_up(order='FORGED7')]<|tool_call_end|>",
    "llama3.1": LLAMA_CALL,
    "llama4": LLAMA_CALL,
    "mistral-nemo": f'[TOOL_CALLS][{WRITTEN_CALL[:-1]}, "id": "123456789"}}]',
    "mistral-small": f'[TOOL_CALLS][{WRITTEN_CALL[:-1]}, "id": "123456789"}}]',
    "mistral-v3": f'[TOOL_CALLS] [{WRITTEN_CALL[:-1]}, "id": "123456789"}}]',
    "phi4-mini": f"<|tool_call|>[{WRITTEN_CALL}]<|/tool_call|>",
}
CALL_ENDS = {"chatglm3": "<|observation|>", "glm4": "<|observation|>"}
"""What ends a call where it is not what ends an answer."""


@pytest.mark.parametrize("name", WRITES_TOOLS)
def test_tools_and_their_calls_pass_through_the_template(chats, name):
    chat, end = chats[name], end_of(name)
    talked = json.loads(json.dumps(CALLED).replace("<|im_end|>", end))
    tools = json.loads(json.dumps(TOOLS).replace("<|im_end|>", end))
    call_end = CALL_ENDS.get(name, end)

    made, said = trained_runs(chat, talked, tools)

    assert text_of(chat, made) == WRITTEN[name].replace("FORGED", end) + call_end
    assert text_of(chat, said).strip() == "It is on its way." + end
    for run, last in ((made, call_end), (said, end)):
        assert [token for token in run if token in chat.end_ids] == [chat.encoder.added[last]]
    assert {chat.encoder.added[call_end], chat.encoder.added[end]} <= set(chat.stop_ids)
    ids = chat.encode(talked, tools).ids.tolist()
    assert f"{end} é" in text_of(chat, ids)
    prompt = chat.prompt_ids(talked[:3], tools)
    assert ids[: len(prompt)] == prompt


ARGUMENTS = st.dictionaries(
    st.sampled_from("abcd"), SAID | st.integers() | st.booleans() | st.lists(SAID, max_size=2), max_size=3
)


def called(name: str, texts: list[str], arguments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A talk in which tools are called, each as often as the family can say it, and answer."""
    calls = [
        {"id": f"call_00000000{n}", "type": "function", "function": {"name": f"f{n}", "arguments": one}}
        for n, one in enumerate(arguments[:1] if name in ONE_CALL else arguments)
    ]
    beside = "" if name.startswith("llama") else texts[1]
    answers = [
        {"role": "tool", "tool_call_id": call["id"], "name": call["function"]["name"], "content": texts[2]}
        for call in calls
    ]
    return [
        *talk(texts[0]),
        {"role": "assistant", "content": beside, "tool_calls": calls},
        *answers,
        *talk(texts[3], texts[4], texts[5])[1:],
        {"role": "assistant", "content": "", "tool_calls": calls[:1]},
    ]


@pytest.mark.parametrize("name", WRITES_TOOLS)
@PROPERTY
@given(
    texts=st.lists(SAID, min_size=7, max_size=7),
    arguments=st.lists(ARGUMENTS, min_size=1, max_size=2),
    system=st.booleans(),
)
def test_every_turn_of_a_talk_with_tools_is_trained_as_it_is_asked(chats, name, texts, arguments, system):
    chat = chats[name]
    messages = [*talk(system=texts[6] if system else None), *called(name, texts, arguments)]
    function = {"name": "f0", "description": texts[6], "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": function}]

    ids, labels = chat.encode(messages, tools)

    runs = trained_runs(chat, messages, tools)
    turns = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    assert len(runs) == len(turns) == 3
    for run, number in zip(runs, turns, strict=True):
        calls = messages[number].get("tool_calls")
        end = CALL_ENDS.get(name, end_of(name)) if calls else end_of(name)
        assert [token for token in run if token in chat.end_ids] == run[-1:] == [chat.encoder.added[end]]
        assert messages[number]["content"].strip() in text_of(chat, run)
        assert all(call["function"]["name"] in text_of(chat, run) for call in calls or [])
        prompt = chat.prompt_ids(messages[:number], tools)
        assert ids[: len(prompt)].tolist() == prompt
        assert labels[len(prompt) - 1] == -100 and labels[len(prompt)] != -100


SAME = {
    "command-r": "cohere", "gemma": "gemma3", "internlm2": "lfm2", "lfm2": "lfm2_v2", "llama3": "llama3",
    "llama3.1": "llama3_1", "phi3": "phi3", "qwen": "qwen2_5", "qwen2": "qwen2_5_vl",
    "qwen3": "qwen3_instruct_2507",
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_a_built_in_template_writes_what_the_models_own_writes(name):
    theirs = PUBLISHED.get(SAME[name])
    if theirs is None:
        pytest.skip("needs the templates that trl ships")
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    for messages in (talk("a"), talk("a", "b", "c"), talk("a", "b", "c", system="s")):
        ours = render(built_ins()[name].template, messages, tokens, add_generation_prompt=True)
        assert ours == render(theirs, messages, tokens, add_generation_prompt=True)


@pytest.mark.model
@pytest.mark.slow
def test_smollm_is_written_as_the_real_models_file_has_it(real_tokenizer):
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    theirs = ChatTemplate.load(real_tokenizer).text
    for messages in (talk("a"), talk("a", "b", "c"), talk("a", "b", "c", system="s")):
        ours = render(built_ins()["smollm"].template, messages, tokens, add_generation_prompt=True)
        assert ours == render(theirs, messages, tokens, add_generation_prompt=True)


@pytest.mark.parametrize("name", ["lfm2", "llama3.1", "qwen", "qwen3"])
def test_a_built_in_template_writes_tools_as_the_models_own_does(name):
    theirs = PUBLISHED.get(SAME[name])
    if theirs is None:
        pytest.skip("needs the templates that trl ships")
    for messages in (CALLED, [*talk("x", system="s"), *CALLED[1:]]):
        parsed = [
            message | {"tool_calls": CALL} if "tool_calls" in message else message for message in messages
        ]
        tokens = {"bos_token": "<s>"}
        ours = render(built_ins()[name].template, parsed, tokens, tools=TOOLS)
        assert ours == render(theirs, parsed, tokens, tools=TOOLS)


CALL = [
    {"function": {"name": "look_up", "arguments": {"order": "Jo's \\ 7", "urgent": True, "of": [1, None]}}}
]


def test_deepseek_v3_writes_calls_and_answers_as_the_models_own_does():
    theirs = PUBLISHED.get("deepseekv3")
    if theirs is None:
        pytest.skip("needs the templates that trl ships")
    text = json.dumps(CALL[0]["function"]["arguments"])
    calls = [{"type": "function", "function": {"name": "look_up", "arguments": text}}]
    written = [message | {"tool_calls": calls} if "tool_calls" in message else message for message in CALLED]
    parsed = [message | {"tool_calls": CALL} if "tool_calls" in message else message for message in CALLED]
    tokens = {"bos_token": "<s>"}
    for many in (2, 3, 4):
        ours = render(built_ins()["deepseek-v3"].template, parsed[:many], tokens)
        assert ours == render(theirs, written[:many], tokens)


def test_plain_text_is_trained_whole_and_ends_in_the_end_of_text(chats):
    (run,) = trained_runs(chats["chatml"], [{"role": "text", "content": "Aa <|im_end|> bb"}])
    assert run[-1] == chats["chatml"].encoder.added["</s>"]
    assert chats["chatml"].encoder.added["<|im_end|>"] not in run
    assert "Aa <|im_end|> bb</s>".endswith(text_of(chats["chatml"], run))


LLAMA3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
FOUND = {
    ("qwen2", "<|im_start|>", "<|im_end|>"): "qwen",
    ("llama", "<|im_start|>", "<|im_end|>"): "chatml",
    ("internlm2", "<|im_start|>", "<|im_end|>"): "internlm2",
    ("llama", *LLAMA3): "llama3",
    ("llama", *LLAMA3, "<|eom_id|>", "<|python_tag|>"): "llama3.1",
    ("gemma3_text", "<start_of_turn>", "<end_of_turn>"): "gemma",
    ("phi3", "<|user|>", "<|assistant|>", "<|end|>"): "phi3",
    ("phi3", "<|im_start|>", "<|im_sep|>", "<|im_end|>"): "phi4",
    ("mistral",): "mistral",
    ("mistral", "[INST]", "[/INST]"): "mistral-nemo",
    ("mistral", "[INST]", "[/INST]", "[control_8]"): "mistral-v3",
    ("deepseek_v3", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"): "deepseek-v3",
    ("glm4", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"): "glm4",
    ("baichuan", "<reserved_106>", "<reserved_107>"): "baichuan",
    ("gpt2",): "alpaca",
}


@pytest.mark.parametrize("model", FOUND, ids=FOUND.get)
def test_a_model_without_a_template_gets_the_one_made_for_its_kind(model, tmp_path):
    model_type, *tokens = model
    save(tmp_path, {"<s>", "</s>", *tokens})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert ChatTemplate.load(tmp_path).source == f"built-in {FOUND[model]}; the model has none"


@pytest.mark.parametrize("alias", ["yi", "phi", "qwen2.5", "internlm3", "smollm2"])
def test_a_template_may_be_called_by_its_models_name(alias, tokenizer_dir):
    (name,) = [name for name, one in built_ins().items() if alias in one.aliases]
    assert ChatTemplate.load(tokenizer_dir, alias).text == built_ins()[name].template


def test_every_name_of_a_built_in_template_is_that_of_one_only():
    names = [name for built_in in built_ins() for name in (built_in, *built_ins()[built_in].aliases)]
    assert len(names) == len(set(names)) > 50


def test_the_models_own_template_is_found_wherever_it_is_kept(make_tokenizer):
    folder = make_tokenizer(eos="<|im_end|>")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    own = config.pop("chat_template")
    assert ChatTemplate.load(folder).source == "tokenizer_config.json"

    named = [{"name": "rag", "template": "x"}, {"name": "default", "template": own}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": named}))
    assert ChatTemplate.load(folder).text == own

    (folder / "chat_template.jinja").write_text(own + "{# a file #}")
    assert ChatTemplate.load(folder).source == "chat_template.jinja"
    assert ChatTemplate.load(folder, "zephyr").source == "built-in zephyr"

    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert ChatTemplate.load(folder).source == "built-in chatml; the model has none"


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(TemplateError, match="there is no tokenizer.json"):
        ChatTemplate.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(TemplateError, match="cannot be read"):
        ChatTemplate.load(tmp_path)


def test_an_answer_stops_at_its_end_of_turn_and_at_the_end_of_text(chats):
    added = chats["llama3"].encoder.added
    assert chats["llama3"].stop_ids == sorted([added["<|eot_id|>"], added["</s>"]])


HELPERS = [
    "{{ messages | tojson }}|{{ messages[0] | tojson(indent=2) }}",
    "{% for m in messages %}\n {% if loop.last %}{% break %}{% endif %}\n{{ m.content }}\n{% endfor %}\n",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "{{ bos_token }}{{ strftime_now('%Y') }}{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}",
    "{% if tools %}tools{% endif %}{% if documents is not none %}d{% endif %}{{ missing }}{{ dict(a=1) }}",
]


@pytest.mark.slow
@pytest.mark.parametrize("template", [*HELPERS, THINKING.replace("opening", "''")])
def test_templates_render_as_transformers_renders_them(template):
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = talk('a <b> "é"', "c", system="s")
    for asking in (False, True):
        (theirs,), _ = render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=asking, bos_token="<s>"
        )
        assert render(template, messages, {"bos_token": "<s>"}, add_generation_prompt=asking) == theirs


@pytest.mark.model
@pytest.mark.slow
def test_the_real_tokens_are_those_of_transformers(real_tokenizer):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(real_tokenizer)
    ours = ChatTemplate.load(real_tokenizer)

    def tokens(messages: list[dict[str, Any]], asking: bool) -> list[int]:
        return theirs.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=asking, return_dict=False
        )

    @settings(max_examples=60, deadline=None)
    @given(
        texts=st.lists(TEXT.filter(str.strip), min_size=2, max_size=4),
        system=st.none() | TEXT.filter(str.strip),
    )
    def same(texts: list[str], system: str | None) -> None:
        assume(not any(token in text for token in ours.encoder.added for text in [*texts, system or ""]))
        assume(all(map(theirs.tokenize, texts)))  # it has no token for U+0004, 06, 13, 14 and 16
        messages = talk(*texts[: len(texts) // 2 * 2], system=system)
        assert ours.prompt_ids(messages[:-1]) == tokens(messages[:-1], True)
        if not any(text[0].isspace() for text in texts[1::2]):  # else a token may join prompt and answer
            assert ours.encode(messages).ids.tolist() == tokens(messages, False)

    same()


@pytest.mark.model
@pytest.mark.slow
def test_the_real_models_turns_are_trained_with_their_end(real_tokenizer):
    chat = ChatTemplate.load(real_tokenizer)
    runs = trained_runs(chat, talk("Hi", "Hello, 世界 😀", "<|im_end|>", "{}"))
    assert [text_of(chat, run) for run in runs] == ["Hello, 世界 😀<|im_end|>", "{}<|im_end|>"]
    assert chat.stop_ids == [2]
