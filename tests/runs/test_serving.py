"""What a service is said to take of its device, by the numbers of models that everybody knows."""

from datatunerx.resources.enums import Engine, Precision
from datatunerx.runs import ModelFiles, ServedModel, ServePlan
from datatunerx.runs.serving import BaseSize, ServedBase, memory_bytes

GB = 1 << 30
SMOLLM2 = BaseSize(134_515_008, cache_width=2 * 30 * 3 * 64)
LLAMA2_7B = BaseSize(6_738_415_616, cache_width=2 * 32 * 32 * 128)


def needs(size, *, adapters=0, **fields) -> float:
    models = tuple(
        ServedModel(name=f"m{n}", adapter_uri=f"file:///a/{n}" if n else None) for n in range(adapters + 1)
    )
    plan = ServePlan(model=ModelFiles(name="b", uri="file:///b", digest="d" * 64), **fields)
    return memory_bytes(ServedBase("d" * 64, "file:///b", size, models), plan) / GB


def test_the_cache_counts_and_is_most_of_it_for_many_heads_and_long_contexts():
    half = {"precision": Precision.BFLOAT16}
    # 2 x 32,768 places x 262,144 numbers of two bytes are 32 GB; the weights 12.6, working room 1
    assert round(needs(LLAMA2_7B, **half), 1) == 45.6
    assert round(needs(LLAMA2_7B, max_tokens=4096, **half), 1) == 17.6
    full = {"precision": Precision.FLOAT32}
    # on a CPU the weights lie there twice: 2 x 0.5, a cache of 2 x 32,768 x 11,520 x 4 bytes, and 1
    assert round(needs(SMOLLM2, **full), 1) == 4.8
    assert 0.05 < needs(SMOLLM2, adapters=1, **full) - needs(SMOLLM2, **full) < 0.1


def test_what_is_not_known_takes_the_whole_device():
    assert needs(BaseSize(), precision=Precision.FLOAT32) == 0
    assert needs(BaseSize(1000, 0), precision=Precision.FLOAT32) == 0
    assert needs(SMOLLM2, engine=Engine.VLLM, precision=Precision.FLOAT32) == 0
