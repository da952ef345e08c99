import copy
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from datatunerx.modeling.base import Base, freeze

torch.set_num_threads(1)

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}


def new_network(kind: str, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    if kind == "qwen2":  # biases on q, k and v, and an output head of its own
        return Qwen2ForCausalLM(Qwen2Config(**SMALL, tie_word_embeddings=False)).eval()
    return LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=True)).eval()


@pytest.fixture(params=["llama", "qwen2"])
def network(request):
    return new_network(request.param)


@pytest.fixture
def base(network) -> Base:
    return freeze(copy.deepcopy(network))


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A tiny Llama with a tokenizer, as it lies on disk."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "tiny"
    new_network("llama").save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1, "hello": 2, "world": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<unk>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<end>{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def make_rows():
    def make(lengths, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return [torch.randint(1, 97, (n,), generator=generator) for n in lengths]

    return make
