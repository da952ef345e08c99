"""How each built-in template writes tools, their calls and what they answered, against what is published.

The expected texts are facts, read off the published format which is named beside each of them, and worked out
by hand for one conversation; `test_template_vectors.py` has those without tools.
"""

import json
from typing import Any

import pytest

from datatunerx.data import TemplateError
from datatunerx.data.registry import built_ins
from datatunerx.data.render import render

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
LLAMA_CPP = "ggml-org/llama.cpp tests/test-chat-template.cpp"
MISTRAL = "mistralai/mistral-common tests/data/chat_templates"
SYSTEM: list[dict[str, Any]] = [{"role": "system", "content": "You are a helpful assistant"}]


def written(name: str, messages: list[dict[str, Any]], tools: Any = None, asking: bool = False) -> str:
    template = built_ins()[name].template
    return render(template, messages, TOKENS, tools=tools, add_generation_prompt=asking)


TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Where an order is.",
        "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
    },
}
IN_A_LINE = json.dumps(TOOL)
INDENTED = json.dumps(TOOL, indent=4)
CALLED: list[dict[str, Any]] = [
    *SYSTEM,
    {"role": "user", "content": "Where is order 7?"},
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "123456789", "type": "function", "function": {"name": "look_up", "arguments": {"order": "7"}}}
    ]},
    {"role": "tool", "tool_call_id": "123456789", "content": '{"place": "Oslo"}'},
    {"role": "assistant", "content": "In Oslo."},
]  # fmt: skip
LLAMA_TOOLS = (
    "Given the following functions, please respond with a JSON for a function call with its proper arguments "
    'that best answers the given prompt.\n\nRespond in the format {"name": function name, "parameters": '
    f"dictionary of argument name and its value}}.Do not use variables.\n\n{INDENTED}\n\n"
)

COHERE_TOOLS = (
    "# Safety Preamble\nThe instructions in this section override those in the task description and style gui"
    "de "
    "sections. Don't answer questions that are harmful or immoral.\n\n# System Preamble\n## Basic Rules\n"
    "You are a powerful conversational AI trained by Cohere to help people. You are augmented by a number of "
    "tools, and your job is to use and consume the output of these tools to best help the user. You will see "
    "a "
    "conversation history between yourself and a user, ending with an utterance from the user. You will then "
    "see "
    "a specific instruction instructing you what kind of response to generate. When you answer the user's "
    "requests, you cite your sources in your answers, according to those instructions.\n\n# User Preamble\n"
    "You are a helpful assistant\n\n## Available Tools\nHere is a list of tools that you have available to yo"
    "u:"
    '\n\n```python\ndef look_up(order: str) -> List[Dict]:\n    """Where an order is.\n\n    Args:\n'
    '        order (str): \n    """\n    pass\n```'
)
COHERE_NEXT = (
    "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Write 'Action:' followed by a json-formatted list of actions that"
    " you "
    "want to perform in order to produce a good response to the user's last input. You can use any of the "
    "supplied tools any number of times, but you should aim to execute the minimum number of necessary action"
    "s "
    "for the input. You should use the `directly-answer` tool if calling the other tools is unnecessary. The "
    "list "
    "of actions you want to call should be formatted as a list of json objects, for example:\n```json\n[\n   "
    " "
    '{\n        "tool_name": title of the tool in the specification,\n        "parameters": a dict of paramet'
    "ers "
    "to input into the tool as they are defined in the specs, or {} if it takes no parameters\n    }\n]```"
    "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
)
FUNCTION = json.dumps(TOOL["function"])

TOOLED: dict[str, tuple[str, str]] = {
    "chatglm3": (
        "THUDM/ChatGLM3 PROMPT_en.md and finetune_demo/preprocess_utils.py; the tools after a system turn: it"
        "s "
        "tokenization_chatglm.py build_chat_input",
        "[gMASK]sop<|system|>\n You are a helpful assistant\n"
        f"{json.dumps([TOOL['function']], indent=4)}<|user|>\n Where is order 7?<|assistant|>look_up\n "
        "```python\ntool_call(order='7')\n```<|observation|>\n {\"place\": \"Oslo\"}<|assistant|>\n In Oslo.<"
        "|user|>",
    ),
    "command-r": (
        "CohereForAI/c4ai-command-r-plus tool_use, as llama.cpp has it in models/templates, but for the end a"
        "fter "
        "the call, and for what is to be written next, which stands there before the last answer only",
        f"<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{COHERE_TOOLS}<|END_OF_TURN_TOKEN|>"
        f"<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Where is order 7?<|END_OF_TURN_TOKEN|>{COHERE_NEXT}\nAction:\n"
        '```json\n[\n    {\n        "tool_name": "look_up",\n        "parameters": {\n            "order": "7'
        '"\n'
        "        }\n    }\n]```\n<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><results>\n"
        f'{{"place": "Oslo"}}</results><|END_OF_TURN_TOKEN|>{COHERE_NEXT}In Oslo.<|END_OF_TURN_TOKEN|>',
    ),
    "deepseek-v3": (
        "deepseek-ai/DeepSeek-V3 tokenizer_config.json, as trl/chat_templates/deepseekv3.jinja has it; it wri"
        "tes "
        "no definitions: those of vllm-project/vllm examples/tool_chat_template_deepseekv3.jinja",
        "<s>You are a helpful assistant\n\n# Tools\n\nYou may call one or more functions to assist with the u"
        "ser "
        "query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        f"{IN_A_LINE}\n</tools>\n\nFor function call returns, you should first print <｜tool▁calls▁begin｜>"
        "For each function call, you should return object like:\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>"
        "<function_name>\n```json\n<function_arguments_in_json_format>\n```<｜tool▁call▁end｜>At the end of f"
        "unction "
        "call returns, you should print <｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜User｜>Where is order 7?"
        "<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look_up\n```json\n"
        '{"order": "7"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁outputs▁begin'
        '｜>'
        '<｜tool▁output▁begin｜>{"place": "Oslo"}<｜tool▁output▁end｜><｜tool▁outputs▁end｜>In Oslo.'
        "<｜end▁of▁sentence｜>",
    ),
    "glm4": (
        "THUDM/glm-4-9b-chat's own template, as huggingface/huggingface.js packages/ollama-utils has it for "
        "glm4:9b; a call's name before the line break: hiyouga/LLaMA-Factory src/llamafactory/data/tool_utils"
        ".py",
        "[gMASK]<sop><|system|>\n你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型"
        "开发的，"
        "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具\n\n## look_up\n\n"
        f"{json.dumps(TOOL['function'], indent=4)}\n在调用上述函数时，请使用 Json 格式表示调用的参数。"
        "<|system|>\nYou are a helpful assistant<|user|>\nWhere is order 7?<|assistant|>look_up\n"
        '{"order": "7"}<|observation|>\n{"place": "Oslo"}<|assistant|>\nIn Oslo.<|user|>',
    ),
    "hermes": (
        "NousResearch/Hermes-Function-Calling template_tests/hf_chat_template.ipynb, Hermes-2-Pro-Llama-3-8B "
        "tool_use; the definitions as JSON, the header and the line breaks around turns: its model card",
        "<s><|im_start|>system\nYou are a function calling AI model. You are provided with function signature"
        "s "
        "within <tools></tools> XML tags. You may call one or more functions to assist with the user query. D"
        "on't "
        "make assumptions about what values to plug into functions. Here are the available tools: <tools> "
        f"{IN_A_LINE} </tools>Use the following pydantic model json schema for each tool call you will make: "
        '{"properties": {"name": {"title": "Name", "type": "string"}, "arguments": {"title": "Arguments", "ty'
        'pe": '
        '"object"}}, "required": ["name", "arguments"], "title": "FunctionCall", "type": "object"}\n'
        "For each function call return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags as follows:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-dict>}\n</tool_call><|im_end|>\n'
        "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nWhere is order 7?<|im_e"
        "nd|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "look_up", "arguments": {"order": "7"}}\n</tool_call>'
        '<|im_end|>\n<|im_start|>tool\n<tool_response>\n{"place": "Oslo"}\n</tool_response>\n<|im_end|>\n'
        "<|im_start|>assistant\nIn Oslo.<|im_end|>\n",
    ),
    "internlm2": (
        "InternLM/InternLM chat/chat_format.md; the definitions in a line: vllm-project/vllm "
        "examples/tool_chat_template_internlm2_tool.jinja",
        "<s><|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>system name=<|plugin|>\n"
        f"[{FUNCTION}]<|im_end|>\n<|im_start|>user\nWhere is order 7?<|im_end|>\n<|im_start|>assistant\n"
        '<|action_start|><|plugin|>\n{"name": "look_up", "parameters": {"order": "7"}}<|action_end|><|im_end|'
        '>\n'
        '<|im_start|>environment name=<|plugin|>\n{"place": "Oslo"}<|im_end|>\n'
        "<|im_start|>assistant\nIn Oslo.<|im_end|>\n",
    ),
    "phi4-mini": (
        "microsoft/Phi-4-mini-instruct README.md (definitions), its tokens for calls and answers, between whi"
        "ch "
        "other projects write lists of calls and the answer as it is",
        f"<|system|>You are a helpful assistant<|tool|>[{FUNCTION}]<|/tool|><|end|><|user|>Where is order 7?<"
        f"|end|>"
        '<|assistant|><|tool_call|>[{"name": "look_up", "arguments": {"order": "7"}}]<|/tool_call|><|end|>'
        '<|tool_response|>{"place": "Oslo"}<|end|><|assistant|>In Oslo.<|end|>',
    ),
    "telechat": (
        "Tele-AI/TeleChat2 deepspeed/train.py, but that a given system turn stands in place of its own words "
        "and "
        "keeps its tools",
        "<_system>You are a helpful assistant\n\n# 可用工具\n你可以调用<tools></tools>标签中包含的一个或多个"
        "工具来"
        f"辅助你回答问题,以下是可用工具详情：\n<tools>\n{IN_A_LINE}\n</tools>\n\n# 调用方法\n你需要遵循工具的"
        f"要求，"
        "使用json格式返回工具名称及参数，并用<tool_call></tool_call>包含。下方是一个调用模板：\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>\n\n<_user>Where is order 7?'
        '<_bot>'
        '<tool_call>\n{"name": "look_up", "arguments": {"order": "7"}}\n</tool_call><_end>\n<_user><tool_resp'
        'onse>\n'
        '{"place": "Oslo"}\n</tool_response><_bot>In Oslo.<_end>',
    ),
    "granite": (
        f"{LLAMA_CPP}, ibm-granite/granite-3.0-8b-instruct (tools) and granite-3.x (tool call)",
        f"<|start_of_role|>available_tools<|end_of_role|>\n{INDENTED}<|end_of_text|>\n"
        "<|start_of_role|>system<|end_of_role|>You are a helpful assistant<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Where is order 7?<|end_of_text|>\n"
        '<|start_of_role|>assistant<|end_of_role|><|tool_call|>[{"name": "look_up", "arguments": '
        '{"order": "7"}}]<|end_of_text|>\n'
        '<|start_of_role|>tool_response<|end_of_role|>{"place": "Oslo"}<|end_of_text|>\n'
        "<|start_of_role|>assistant<|end_of_role|>In Oslo.<|end_of_text|>\n",
    ),
    "llama4": (
        "vllm-project/vllm examples/tool_chat_template_llama4_json.jinja",
        "<s><|header_start|>system<|header_end|>\n\nEnvironment: ipython\nYou are a helpful assistant<|eot|>"
        f"<|header_start|>user<|header_end|>\n\n{LLAMA_TOOLS}Where is order 7?<|eot|>"
        '<|header_start|>assistant<|header_end|>\n\n{"name": "look_up", "parameters": {"order": "7"}}<|eot|>'
        '<|header_start|>ipython<|header_end|>\n\n"{\\"place\\": \\"Oslo\\"}"<|eom|>'
        "<|header_start|>assistant<|header_end|>\n\nIn Oslo.<|eot|>",
    ),
    "mistral-nemo": (
        f"{LLAMA_CPP}, mistralai 'v3-tekken' template; {MISTRAL}/v3.jinja",
        f"<s>[AVAILABLE_TOOLS][{IN_A_LINE}][/AVAILABLE_TOOLS]"
        "[INST]You are a helpful assistant\n\nWhere is order 7?[/INST]"
        '[TOOL_CALLS][{"name": "look_up", "arguments": {"order": "7"}, "id": "123456789"}]</s>'
        '[TOOL_RESULTS]{"content": {"place": "Oslo"}, "call_id": "123456789"}[/TOOL_RESULTS]In Oslo.</s>',
    ),
    "mistral-small": (
        "mistralai/mistral-common tests/data/expected/chat-sample-weather-full-released-p7i",
        "<s>[SYSTEM_PROMPT]You are a helpful assistant[/SYSTEM_PROMPT]"
        f"[AVAILABLE_TOOLS][{IN_A_LINE}][/AVAILABLE_TOOLS][INST]Where is order 7?[/INST]"
        '[TOOL_CALLS][{"name": "look_up", "arguments": {"order": "7"}, "id": "123456789"}]</s>'
        '[TOOL_RESULTS]123456789[TOOL_CONTENT]{"place": "Oslo"}[/TOOL_RESULTS]In Oslo.</s>',
    ),
    "mistral-v3": (
        "mistralai/mistral-common tests/data/expected/chat-sample-weather-full-spm-v3",
        f"<s>[AVAILABLE_TOOLS] [{IN_A_LINE}][/AVAILABLE_TOOLS]"
        "[INST] You are a helpful assistant\n\nWhere is order 7?[/INST]"
        '[TOOL_CALLS] [{"name": "look_up", "arguments": {"order": "7"}, "id": "123456789"}]</s>'
        '[TOOL_RESULTS] {"content": {"place": "Oslo"}, "call_id": "123456789"}[/TOOL_RESULTS] In Oslo.</s>',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOOLED)
def test_tools_their_calls_and_answers_are_written_as_is_published(name):
    assert written(name, CALLED, [TOOL]) == TOOLED[name][1]


def test_without_a_system_turn_tools_are_told_of_in_the_models_own_words():
    assert written("chatglm3", CALLED[1:2], [TOOL], asking=True).startswith(
        "[gMASK]sop<|system|>\n Answer the following questions as best as you can. You have access to the fol"
        "lowing "
        f"tools:\n{json.dumps([TOOL['function']], indent=4)}<|user|>\n "  # THUDM/ChatGLM3 PROMPT_en.md
    )
    assert written("phi4-mini", CALLED[1:2], [TOOL], asking=True).startswith(
        "<|system|>You are a helpful assistant with some tools.<|tool|>[{"  # its model card
    )
    assert written("telechat", CALLED[1:2], [TOOL], asking=True).startswith(
        "<_system>你是中国电信星辰语义大模型，英文名是TeleChat，"
    )
    assert "# User Preamble\n## Task and Context\nYou help people" in written(
        "command-r", CALLED[1:2], tools=[TOOL]
    )


CALLS = [{"function": {"name": name, "arguments": {"n": n}}} for n, name in enumerate(("first", "second"))]
TWICE: list[dict[str, Any]] = [
    {"role": "user", "content": "Both?"},
    {"role": "assistant", "content": "Sure.", "tool_calls": CALLS},
    {"role": "tool", "content": "one"},
    {"role": "tool", "content": "two"},
]
PAIRED = {
    "command-r": (
        'Sure.\nAction:\n```json\n[\n    {\n        "tool_name": "first",\n        "parameters": {\n         '
        '   "n": 0\n'
        '        }\n    },\n    {\n        "tool_name": "second",\n        "parameters": {\n            "n": '
        '1\n        }\n'
        "    }\n]```\n<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><results>\none</results>"
        "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><results>\ntwo</results><|END_OF_TURN_TO"
        "KEN|>"
    ),
    "deepseek-v3": (
        'Sure.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>first\n```json\n{"n": 0}\n```'
        '<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>second\n```json\n{"n": 1}\n```'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁outputs▁begin｜><｜tool▁output▁b"
        "egin｜>one"
        "<｜tool▁output▁end｜>\n<｜tool▁output▁begin｜>two<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
    ),
    "hermes": (
        'Sure.\n<tool_call>\n{"name": "first", "arguments": {"n": 0}}\n</tool_call>\n<tool_call>\n'
        '{"name": "second", "arguments": {"n": 1}}\n</tool_call><|im_end|>\n<|im_start|>tool\n<tool_response>'
        '\none\n'
        "</tool_response>\n<tool_response>\ntwo\n</tool_response>\n<|im_end|>\n"
    ),
    "internlm2": (
        'Sure.<|action_start|><|plugin|>\n{"name": "first", "parameters": {"n": 0}}<|action_end|>'
        '<|action_start|><|plugin|>\n{"name": "second", "parameters": {"n": 1}}<|action_end|><|im_end|>\n'
        "<|im_start|>environment name=<|plugin|>\none<|im_end|>\n"
        "<|im_start|>environment name=<|plugin|>\ntwo<|im_end|>\n"
    ),
    "phi4-mini": (
        'Sure.<|tool_call|>[{"name": "first", "arguments": {"n": 0}}, {"name": "second", "arguments": {"n": 1'
        '}}]'
        "<|/tool_call|><|end|><|tool_response|>one<|end|><|tool_response|>two<|end|>"
    ),
    "telechat": (
        'Sure.<tool_call>\n{"name": "first", "arguments": {"n": 0}}\n</tool_call>\n<tool_call>\n'
        '{"name": "second", "arguments": {"n": 1}}\n</tool_call><_end>\n<_user><tool_response>\none\n</tool_r'
        'esponse>'
        "<tool_response>\ntwo\n</tool_response>"
    ),
}  # fmt: skip
"""Two calls beside words, and two answers: by the sources of TOOLED."""


@pytest.mark.parametrize("name", PAIRED)
def test_several_calls_and_answers_are_written_as_is_published(name):
    assert written(name, TWICE).partition("Sure.")[1:] == (
        "Sure.",
        PAIRED[name][len("Sure.") :],
    )


@pytest.mark.parametrize("name", ["chatglm3", "glm4"])
def test_a_family_that_makes_one_call_in_a_turn_refuses_two(name):
    with pytest.raises(TemplateError, match="makes one call in a turn"):
        written(name, TWICE)


def test_an_argument_of_a_call_in_python_is_written_as_python_writes_it():
    values = {
        "a": "it's",
        "b": "a \"b\" 'c'\n\\",
        "c": True,
        "d": None,
        "e": [1, 2.5, {"f": False}],
        "g": {},
        "h": -3,
    }
    call = {"function": {"name": "f", "arguments": values}}
    text = written(
        "chatglm3", [*CALLED[1:2], {"role": "assistant", "content": "", "tool_calls": [call]}], asking=False
    )
    line = text.partition("```python\ntool_call(")[2].removesuffix(")\n```<|observation|>")
    assert line == ", ".join(f"{name}={value!r}" for name, value in values.items())
