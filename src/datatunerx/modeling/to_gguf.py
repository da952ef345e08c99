"""A folder in Hugging Face's layout into one GGUF file, as llama.cpp and what is built on it read it.

Only byte-level BPE tokenizers whose way of cutting text llama.cpp knows by name are written: a wrong name
would tokenise otherwise than the model was trained.
"""

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import quant_shape_to_byte_shape, quantize
from safetensors import safe_open

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Model type -> what llama.cpp calls it."""
PERMUTED = ("llama", "mistral")
"""Model types whose query and key rows llama.cpp keeps in another order."""
TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
"""What is written without llama.cpp."""
FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
QUANTIZE = "llama-quantize"
QUANTIZE_SECONDS = 6 * 3600
BLOCK = 32
"""Values that share a scale in q8_0; a row that is no multiple of it stays f16."""
_CONTROL, _USER, _NORMAL, _UNUSED = (
    gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED, gguf.TokenType.NORMAL, gguf.TokenType.UNUSED,
)  # fmt: skip


class CannotWriteGguf(ValueError):
    """A model that has no GGUF form here; the message says what is missing."""


def write_gguf(
    folder: Path, path: Path, type: str, name: str, tell: Callable[[str], None] = lambda text: None
) -> None:
    """Write the model in `folder` as `path`. Types beyond `TYPES` need llama-quantize on the PATH.

    Raises `CannotWriteGguf`.
    """
    must_be_writable(folder, type)
    if type in TYPES:
        _write(folder, path, type, name)
        return
    program = shutil.which(QUANTIZE)
    assert program
    whole = path.with_suffix(".f16.gguf")
    _write(folder, whole, "f16", name)
    tell(f"quantising to {type} with {program}")
    done = subprocess.run(
        [program, str(whole), str(path), type.upper()], capture_output=True, text=True,
        timeout=QUANTIZE_SECONDS, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    whole.unlink()
    if done.returncode or not path.is_file():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise CannotWriteGguf(f"{QUANTIZE} ended with {done.returncode}: {last[0]}")


def must_be_writable(folder: Path, type: str) -> None:
    """Raise `CannotWriteGguf` for what the type or the model's config alone rules out."""
    if type not in TYPES and shutil.which(QUANTIZE) is None:
        raise CannotWriteGguf(
            f"type {type} is made by llama.cpp's {QUANTIZE}, which is not on the PATH of the server; install "
            f"llama.cpp, or choose one of {', '.join(TYPES)}"
        )
    config = _config(folder)
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise CannotWriteGguf(f"architecture {kind!r} has no GGUF form here; it can be one of {known}")
    rope = _rope(config)
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling != "default":
        raise CannotWriteGguf(f"rope scaling {scaling!r} has no GGUF form here")
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        raise CannotWriteGguf("a sliding attention window has no GGUF form here")


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def _write(folder: Path, path: Path, type: str, name: str) -> None:
    config = _config(folder)
    kind = str(config["model_type"])
    writer = gguf.GGUFWriter(path, ARCHITECTURES[kind], use_temp_file=False)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, config)
    _add_tokenizer(writer, folder, config)
    chosen = [(out, shape, _quantised(out, shape, type)) for _, out, shape in _tensors(folder, config)]
    for out, shape, quantised in chosen:
        num_bytes = math.prod(quant_shape_to_byte_shape(shape, quantised))
        writer.add_tensor_info(out, shape, np.dtype(np.float32), num_bytes, raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for (read, _, _), (_, _, quantised) in zip(_tensors(folder, config), chosen, strict=True):
        writer.write_tensor_data(quantize(read(), quantised))
    writer.close()


def _quantised(name: str, shape: tuple[int, ...], type: str) -> gguf.GGMLQuantizationType:
    """Vectors stay whole, as in llama.cpp's own converter: they are few, and sums depend on them."""
    if len(shape) < 2:
        return TYPES["f32"]
    return TYPES["f16"] if type == "q8_0" and shape[-1] % BLOCK else TYPES[type]


def _add_shape(writer: Any, config: dict[str, Any]) -> None:
    heads = int(config["num_attention_heads"])
    width = int(config.get("head_dim") or config["hidden_size"] // heads)
    rope = _rope(config)
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))


# Tensors


def _tensors(
    folder: Path, config: dict[str, Any]
) -> Iterator[tuple[Callable[[], Any], str, tuple[int, ...]]]:
    """(how to read it in float32, name in the file, shape) of each weight, in one order."""
    kind = str(config["model_type"])
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == ARCHITECTURES[kind])
    names = gguf.get_tensor_name_map(arch, int(config["num_hidden_layers"]))
    tied = bool(config.get("tie_word_embeddings"))
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                if (tied and name == "lm_head.weight") or name.endswith("rotary_emb.inv_freq"):
                    continue
                found = names.get_name(name, try_suffixes=(".weight", ".bias"))
                if found is None:
                    raise CannotWriteGguf(f"{name} has no name in a GGUF file of architecture {kind}")
                shape = tuple(int(n) for n in file.get_slice(name).get_shape())
                yield _reader(path, name, config), found, shape


def _reader(path: Path, name: str, config: dict[str, Any]) -> Callable[[], Any]:
    def read() -> Any:
        with safe_open(path, framework="pt") as file:
            weight = file.get_tensor(name).to(torch.float32).numpy()
        heads = int(config["num_attention_heads"])
        if config["model_type"] in PERMUTED and ".q_proj." in name:
            return _permuted(weight, heads)
        if config["model_type"] in PERMUTED and ".k_proj." in name:
            return _permuted(weight, int(config.get("num_key_value_heads") or heads))
        return weight

    return read


def _permuted(weight: Any, heads: int) -> Any:
    """Rows of each head from halves into pairs: llama.cpp rotates neighbours."""
    half = weight.shape[0] // heads // 2
    split = weight.reshape(heads, 2, half, *weight.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))


# Tokenizer


def _add_tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    document: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = document["model"]
    pre = pre_tokenizer(document)
    if model.get("type") != "BPE" or pre is None or model.get("byte_fallback"):
        raise CannotWriteGguf(
            "this tokenizer has no GGUF form here: only byte-level BPE that splits text as GPT-2, SmolLM, "
            "Llama 3 or Qwen 2 do is written; export a Hugging Face folder (hf) instead"
        )
    size = int(config["vocab_size"])
    tokens = [f"[PAD{n}]" for n in range(size)]
    kinds = [_UNUSED] * size
    for token, number in model["vocab"].items():
        tokens[number], kinds[number] = token, _NORMAL
    for added in document.get("added_tokens") or []:
        if added["id"] >= size:
            raise CannotWriteGguf(f"token {added['content']!r} has no row in the model's embeddings")
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = _CONTROL if added["special"] else _USER
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=size)
    special.chat_template = _template(folder)
    special.add_special_token = {"bos": _adds_bos(document)}
    special.add_to_gguf(writer, quiet=True)
    turn_ends = [n for n in _stop_ids(folder) if n != special.special_token_ids.get("eos")]
    if turn_ends:
        writer.add_eot_token_id(turn_ends[0])


def _template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    found = settings.get("chat_template")
    return found if isinstance(found, str) else None


def _stop_ids(folder: Path) -> list[int]:
    settings = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    found = settings.get("eos_token_id")
    return found if isinstance(found, list) else [] if found is None else [found]


def _adds_bos(document: dict[str, Any]) -> bool:
    """Whether the tokenizer itself begins a text with a token; a template that writes one does so too."""
    parts = (document.get("post_processor") or {}).get("processors", [document.get("post_processor") or {}])
    return any("SpecialToken" in (part.get("single") or [{}])[0] for part in parts)


def pre_tokenizer(document: dict[str, Any]) -> str | None:
    """llama.cpp's name for how a tokenizer.json cuts text before its merges; None if it has none."""
    found = document.get("pre_tokenizer") or {}
    parts = found.get("pretokenizers", [found])
    kinds = [part.get("type") for part in parts]
    if document.get("normalizer") not in (None, {"type": "NFC"}) or not kinds or kinds[-1] != "ByteLevel":
        return None
    if parts[-1].get("add_prefix_space"):
        return None
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm" if parts[1].get("use_regex", True) else None
    if kinds == ["Split", "ByteLevel"] and parts[0].get("behavior") == "Isolated":
        return _BY_PATTERN.get((parts[0].get("pattern") or {}).get("Regex", ""))
    return None


_BY_PATTERN = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": "qwen2",
}
