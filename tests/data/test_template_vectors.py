"""What each built-in template writes, against what is published of the model it was made for.

The expected texts are facts: read off the published format, which is named beside each of them. Where a test
of another project has the very text, `tests` stands in its path; else it was worked out by hand from the
format that the source states. Conversations are those of llama.cpp's and huggingface.js's tests. Tools are
in `test_tool_vectors.py`.
"""

from typing import Any

import pytest

from datatunerx.data import built_in_names
from datatunerx.data.registry import built_ins
from datatunerx.data.render import render

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
LLAMA_CPP = "ggml-org/llama.cpp tests/test-chat-template.cpp"
HF_JS = "huggingface/huggingface.js packages/jinja/test/e2e.test.js"
TULU = "allenai/open-instruct open_instruct/dataset_transformation.py"
MISTRAL = "mistralai/mistral-common tests/data/chat_templates"


def talk(*texts: str) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


SYSTEM: list[dict[str, Any]] = [{"role": "system", "content": "You are a helpful assistant"}]
TURNS = talk("Hello", "Hi there", "Who are you", "   I am an assistant   ", "Another question")
"""Ends with a question; the second answer shows whether texts are trimmed."""
CHEERS = talk(
    "Hello, how are you?",
    "I'm doing great. How can I help you today?",
    "I'd like to show off how chat templating works!",
)
CODER = (
    "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek Company, "
    "and you only answer questions related to computer science. For politically sensitive questions, "
    "security "
    "and privacy issues, and other non-computer science questions, you will refuse to answer\n"
)

ASKED: dict[str, tuple[str, str]] = {
    "alpaca": (
        "tatsu-lab/stanford_alpaca train.py (the prompt of one turn; further turns repeat it)",
        "You are a helpful assistant\n\n### Instruction:\nHello\n\n### Response:Hi there</s>\n\n"
        "### Instruction:\nWho are you\n\n### Response:   I am an assistant   </s>\n\n"
        "### Instruction:\nAnother question\n\n### Response:",
    ),
    "baichuan": (
        "Baichuan-13B-Chat modeling_baichuan.py _build_chat_input; system: vllm-project/vllm "
        "examples/template_baichuan.jinja",
        "You are a helpful assistant<reserved_106>Hello<reserved_107>Hi there</s><reserved_106>Who are you"
        "<reserved_107>   I am an assistant   </s><reserved_106>Another question<reserved_107>",
    ),
    "chatglm3": (
        f"{LLAMA_CPP}, ChatGLM3; THUDM/ChatGLM3 PROMPT_en.md",
        "[gMASK]sop<|system|>\n You are a helpful assistant<|user|>\n Hello<|assistant|>\n Hi there"
        "<|user|>\n "
        "Who are you<|assistant|>\n    I am an assistant   <|user|>\n Another question<|assistant|>",
    ),
    "chatml": (
        f"{LLAMA_CPP}, teknium/OpenHermes-2.5-Mistral-7B",
        "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\nWho are you<|im_end|>\n"
        "<|im_start|>assistant\n   I am an assistant   <|im_end|>\n<|im_start|>user\nAnother question"
        "<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "command-r": (
        f"{LLAMA_CPP}, CohereForAI/c4ai-command-r-plus",
        "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>You are a helpful assistant<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hello<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hi there<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Who are you<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>I am an assistant<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Another question<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    ),
    "deepseek": (
        f"{LLAMA_CPP}, DeepSeek-V2; deepseek-ai/DeepSeek-LLM README.md",
        "<s>You are a helpful assistant\n\nUser: Hello\n\nAssistant: Hi there</s>User: Who are you\n\n"
        "Assistant:    I am an assistant   </s>User: Another question\n\nAssistant:",
    ),
    "deepseek-coder": (
        f"{LLAMA_CPP}, deepseek-ai/deepseek-coder-33b-instruct",
        "<s>You are a helpful assistant### Instruction:\nHello\n### Response:\nHi there\n<|EOT|>\n"
        "### Instruction:\nWho are you\n### Response:\n   I am an assistant   \n<|EOT|>\n"
        "### Instruction:\nAnother question\n### Response:\n",
    ),
    "deepseek-v3": (
        "deepseek-ai/DeepSeek-V3 tokenizer_config.json, as trl/chat_templates/deepseekv3.jinja has it; "
        "it asks "
        "for thoughts, ours does not",
        "<s>You are a helpful assistant<｜User｜>Hello<｜Assistant｜>Hi there<｜end▁of▁sentence｜>"
        "<｜User｜>Who are you"
        "<｜Assistant｜>   I am an assistant   <｜end▁of▁sentence｜><｜User｜>Another question"
        "<｜Assistant｜>",
    ),
    "exaone": (
        "huggingface/huggingface.js packages/ollama-utils, exaone3.5:7.8b",
        "[|system|]You are a helpful assistant[|endofturn|]\n[|user|]Hello\n[|assistant|]Hi "
        "there[|endofturn|]\n"
        "[|user|]Who are you\n[|assistant|]   I am an assistant   [|endofturn|]\n[|user|]Another question\n"
        "[|assistant|]",
    ),
    "gemma": (
        f"{LLAMA_CPP}, google/gemma-7b-it",
        "<s><start_of_turn>user\nYou are a helpful assistant\n\nHello<end_of_turn>\n<start_of_turn>model\n"
        "Hi there<end_of_turn>\n<start_of_turn>user\nWho are you<end_of_turn>\n<start_of_turn>model\n"
        "I am an assistant<end_of_turn>\n<start_of_turn>user\nAnother question<end_of_turn>\n"
        "<start_of_turn>model\n",
    ),
    "glm4": (
        f"{LLAMA_CPP}, ChatGLM4; no line break after the last token, as its own template and THUDM/GLM-4 "
        "finetune_demo/finetune.py have it",
        "[gMASK]<sop><|system|>\nYou are a helpful assistant<|user|>\nHello<|assistant|>\nHi there<|user|>\n"
        "Who are you<|assistant|>\n   I am an assistant   <|user|>\nAnother question<|assistant|>",
    ),
    "granite": (
        f"{LLAMA_CPP}, ibm-granite/granite-3.0-8b-instruct",
        "<|start_of_role|>system<|end_of_role|>You are a helpful assistant<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Hello<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>Hi there<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Who are you<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>   I am an assistant   <|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>Another question<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>",
    ),
    "hermes": (
        "NousResearch/Hermes-Function-Calling template_tests/hf_chat_template.ipynb, Hermes-2-Pro-Llama-3-8B",
        "<s><|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\nWho are you<|im_end|>\n"
        "<|im_start|>assistant\n   I am an assistant   <|im_end|>\n<|im_start|>user\nAnother question"
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    "llama2": (
        f"{LLAMA_CPP}, bofenghuang/vigogne-2-70b-chat; the begin of text before each question: "
        f"{HF_JS}, llama",
        "<s>[INST] <<SYS>>\nYou are a helpful assistant\n<</SYS>>\n\nHello [/INST] Hi there </s>"
        "<s>[INST] Who are you [/INST] I am an assistant </s><s>[INST] Another question [/INST]",
    ),
    "llama3": (
        f"{LLAMA_CPP}, Llama-3",
        "<s><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful assistant<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHi there<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWho are you<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nI am an assistant<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnother question<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "llama4": (
        "vllm-project/vllm examples/tool_chat_template_llama4_json.jinja",
        "<s><|header_start|>system<|header_end|>\n\nYou are a helpful assistant<|eot|>"
        "<|header_start|>user<|header_end|>\n\nHello<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\nHi there<|eot|>"
        "<|header_start|>user<|header_end|>\n\nWho are you<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n   I am an assistant   <|eot|>"
        "<|header_start|>user<|header_end|>\n\nAnother question<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n",
    ),
    "minicpm": (
        f"{LLAMA_CPP}, MiniCPM-3B-OpenHermes-2.5-v2-GGUF, but for the end after each answer; begin and "
        f"end of "
        "text: OpenBMB/MiniCPM finetune/finetune.py",
        "<s>You are a helpful assistant<用户>Hello<AI>Hi there</s><用户>Who are you<AI>I am an assistant</s>"
        "<用户>Another question<AI>",
    ),
    "mistral": (
        f"{LLAMA_CPP}, mistralai 'v1' template with a system prompt; {MISTRAL}/v1_spm.jinja",
        "<s> [INST] You are a helpful assistant\n\nHello [/INST] Hi there</s> [INST] Who are you [/INST]    "
        "I am an assistant   </s> [INST] Another question [/INST]",
    ),
    "mistral-nemo": (
        f"{LLAMA_CPP}, mistralai 'v3-tekken' template; modified to have system prompt at start",
        "<s>[INST]You are a helpful assistant\n\nHello[/INST]Hi there</s>[INST]Who are you[/INST]   "
        "I am an assistant   </s>[INST]Another question[/INST]",
    ),
    "mistral-small": (
        f"{MISTRAL}/v7.jinja",
        "<s>[SYSTEM_PROMPT]You are a helpful assistant[/SYSTEM_PROMPT][INST]Hello[/INST]Hi there</s>"
        "[INST]Who are you[/INST]   I am an assistant   </s>[INST]Another question[/INST]",
    ),
    "mistral-v3": (
        f"{MISTRAL}/v3_spm.jinja, but for the system turn, which {LLAMA_CPP} has at the start, too",
        "<s>[INST] You are a helpful assistant\n\nHello[/INST] Hi there</s>[INST] Who are you[/INST]    "
        "I am an assistant   </s>[INST] Another question[/INST]",
    ),
    "olmo2": (
        f"{TULU}, tulu with add_bos",
        "<s><|system|>\nYou are a helpful assistant\n<|user|>\nHello\n<|assistant|>\nHi there</s>\n<|user|>\n"
        "Who are you\n<|assistant|>\n   I am an assistant   </s>\n<|user|>\nAnother question\n"
        "<|assistant|>\n",
    ),
    "openchat": (
        f"{LLAMA_CPP}, openchat/openchat-3.5-0106 as its authors suggest it",
        "<s>You are a helpful assistant<|end_of_turn|>GPT4 Correct User: Hello<|end_of_turn|>"
        "GPT4 Correct Assistant: Hi there<|end_of_turn|>GPT4 Correct User: Who are you<|end_of_turn|>"
        "GPT4 Correct Assistant:    I am an assistant   <|end_of_turn|>"
        "GPT4 Correct User: Another question<|end_of_turn|>GPT4 Correct Assistant:",
    ),
    "phi3": (
        f"{LLAMA_CPP}, Phi-3-vision",
        "<|system|>\nYou are a helpful assistant<|end|>\n<|user|>\nHello<|end|>\n<|assistant|>\nHi "
        "there<|end|>\n"
        "<|user|>\nWho are you<|end|>\n<|assistant|>\n   I am an assistant   <|end|>\n<|user|>\n"
        "Another question<|end|>\n<|assistant|>\n",
    ),
    "phi4": (
        f"{LLAMA_CPP}, phi-4",
        "<|im_start|>system<|im_sep|>You are a helpful assistant<|im_end|><|im_start|>user<|im_sep|>Hello"
        "<|im_end|><|im_start|>assistant<|im_sep|>Hi there<|im_end|><|im_start|>user<|im_sep|>Who are you"
        "<|im_end|><|im_start|>assistant<|im_sep|>   I am an assistant   <|im_end|><|im_start|>user<|im_sep|>"
        "Another question<|im_end|><|im_start|>assistant<|im_sep|>",
    ),
    "phi4-mini": (
        "ggml-org/llama.cpp models/templates/llama-cpp-microsoft-Phi-4-mini-instruct.jinja",
        "<|system|>You are a helpful assistant<|end|><|user|>Hello<|end|><|assistant|>Hi there<|end|>"
        "<|user|>Who are you<|end|><|assistant|>   I am an assistant   <|end|><|user|>Another question<|end|>"
        "<|assistant|>",
    ),
    "seed-oss": (
        f"{LLAMA_CPP}, ByteDance-Seed/Seed-OSS-36B-Instruct",
        "<seed:bos>system\nYou are a helpful assistant<seed:eos><seed:bos>user\nHello<seed:eos>"
        "<seed:bos>assistant\nHi there<seed:eos><seed:bos>user\nWho are you<seed:eos>"
        "<seed:bos>assistant\nI am an assistant<seed:eos><seed:bos>user\nAnother question<seed:eos>"
        "<seed:bos>assistant\n",
    ),
    "solar": (
        f"{HF_JS}, upstage/SOLAR-10.7B-Instruct-v1.0, but for the end after each answer",
        "### System:\nYou are a helpful assistant\n\n### User:\nHello\n\n### Assistant:\nHi there</s>\n\n"
        "### User:\nWho are you\n\n### Assistant:\n   I am an assistant   </s>\n\n"
        "### User:\nAnother question\n\n### Assistant:\n",
    ),
    "telechat": (
        "Tele-AI/TeleChat2 deepspeed/train.py; the line break after the system turn: modelscope/ms-swift "
        "swift/llm/template/template/llm.py",
        "<_system>You are a helpful assistant\n<_user>Hello<_bot>Hi there<_end>\n<_user>Who are you<_bot>   "
        "I am an assistant   <_end>\n<_user>Another question<_bot>",
    ),
    "tulu": (
        f"{TULU}, tulu",
        "<|system|>\nYou are a helpful assistant\n<|user|>\nHello\n<|assistant|>\nHi there</s>\n<|user|>\n"
        "Who are you\n<|assistant|>\n   I am an assistant   </s>\n<|user|>\nAnother question\n"
        "<|assistant|>\n",
    ),
    "vicuna": (
        "lm-sys/FastChat fastchat/conversation.py, vicuna_v1.1",
        "You are a helpful assistant USER: Hello ASSISTANT: Hi there</s>USER: Who are you ASSISTANT:    "
        "I am an assistant   </s>USER: Another question ASSISTANT:",
    ),
    "xverse": (
        "XVERSE-13B-Chat modeling_xverse.py _build_chat_input; system: modelscope/ms-swift, xverse",
        "You are a helpful assistantHuman: Hello\n\nAssistant: Hi there</s>Human: Who are you\n\n"
        "Assistant:    I am an assistant   </s>Human: Another question\n\nAssistant: ",
    ),
    "zephyr": (
        f"{HF_JS}, HuggingFaceH4/zephyr-7b-beta",
        "<|system|>\nYou are a helpful assistant</s>\n<|user|>\nHello</s>\n<|assistant|>\nHi there</s>\n"
        "<|user|>\nWho are you</s>\n<|assistant|>\n   I am an assistant   </s>\n<|user|>\nAnother "
        "question</s>\n"
        "<|assistant|>\n",
    ),
}  # fmt: skip

CHEERED: dict[str, tuple[str, str]] = {
    "alpaca": (
        "tatsu-lab/stanford_alpaca train.py (the prompt of one turn; further turns repeat it)",
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\nHello, how are you?\n\n### Response:"
        "I'm doing great. How can I help you today?</s>\n\n### Instruction:\n"
        "I'd like to show off how chat templating works!\n\n",
    ),
    "chatml": (
        f"{HF_JS}, cognitivecomputations/dolphin-2.5-mixtral-8x7b",
        "<|im_start|>user\nHello, how are you?<|im_end|>\n<|im_start|>assistant\n"
        "I'm doing great. How can I help you today?<|im_end|>\n<|im_start|>user\n"
        "I'd like to show off how chat templating works!<|im_end|>\n",
    ),
    "deepseek": (
        f"{HF_JS}, deepseek-ai/deepseek-llm-7b-chat",
        "<s>User: Hello, how are you?\n\nAssistant: I'm doing great. How can I help you today?</s>"
        "User: I'd like to show off how chat templating works!\n\n",
    ),
    "deepseek-coder": (
        f"{HF_JS}, deepseek-ai/deepseek-coder-33b-instruct",
        f"<s>{CODER}### Instruction:\nHello, how are you?\n### Response:\n"
        "I'm doing great. How can I help you today?\n<|EOT|>\n### Instruction:\n"
        "I'd like to show off how chat templating works!\n",
    ),
    "exaone": (
        "huggingface/huggingface.js packages/ollama-utils, exaone3.5:7.8b",
        "[|system|][|endofturn|]\n[|user|]Hello, how are you?\n[|assistant|]"
        "I'm doing great. How can I help you today?[|endofturn|]\n[|user|]"
        "I'd like to show off how chat templating works!\n",
    ),
    "internlm2": (
        f"{HF_JS}, internlm/internlm2-chat-7b",
        "<s><|im_start|>user\nHello, how are you?<|im_end|>\n<|im_start|>assistant\n"
        "I'm doing great. How can I help you today?<|im_end|>\n<|im_start|>user\n"
        "I'd like to show off how chat templating works!<|im_end|>\n",
    ),
    "openchat": (
        f"{HF_JS}, openchat/openchat-3.5-0106",
        "<s>GPT4 Correct User: Hello, how are you?<|end_of_turn|>GPT4 Correct Assistant: "
        "I'm doing great. How can I help you today?<|end_of_turn|>GPT4 Correct User: "
        "I'd like to show off how chat templating works!<|end_of_turn|>",
    ),
    "telechat": (
        "Tele-AI/TeleChat2 deepspeed/train.py",
        "<_system>你是中国电信星辰语义大模型，英文名是TeleChat，"
        "你是由中电信人工智能科技有限公司和中国电信人工智能研究院（TeleAI）研发的人工智能助手。\n"
        "<_user>Hello, how are you?<_bot>I'm doing great. How can I help you today?<_end>\n"
        "<_user>I'd like to show off how chat templating works!",
    ),
}  # fmt: skip
"""Without a system turn, and not asking."""

ENDED = {
    "tulu": (f"{TULU}, tulu", "<|assistant|>\nHi there</s>"),
    "olmo2": (f"{TULU}, tulu with add_bos", "<|assistant|>\nHi there</s>"),
    "telechat": ("Tele-AI/TeleChat2 deepspeed/train.py", "<_bot>Hi there<_end>"),
    "zephyr": (f"{HF_JS}, HuggingFaceH4/zephyr-7b-beta", "<|assistant|>\nHi there</s>\n"),
    "chatglm3": ("THUDM/ChatGLM3 PROMPT_en.md: an answer ends where <|user|> stands", "\n Hi there<|user|>"),
}
"""How a conversation ends whose last turn is an answer."""

BY_THE_MODELS_OWN = {"internlm2", "lfm2", "llama3.1", "qwen", "qwen2", "qwen3", "smollm"}
"""Held against the model's own template in test_templates.py."""


def written(name: str, messages: list[dict[str, Any]], asking: bool = True) -> str:
    return render(built_ins()[name].template, messages, TOKENS, add_generation_prompt=asking)


@pytest.mark.parametrize("name", ASKED)
def test_a_template_asks_as_the_models_own_format_is_published(name):
    assert written(name, [*SYSTEM, *TURNS]) == ASKED[name][1]


@pytest.mark.parametrize("name", CHEERED)
def test_without_a_system_turn_a_template_writes_what_is_published(name):
    assert written(name, CHEERS, asking=False) == CHEERED[name][1]


@pytest.mark.parametrize("name", ENDED)
def test_a_conversation_ends_as_is_published(name):
    text = written(name, TURNS[:2], asking=False)
    assert text.endswith(ENDED[name][1])


def test_every_template_is_held_against_what_its_model_published():
    assert {*ASKED, *BY_THE_MODELS_OWN} == set(built_in_names())
