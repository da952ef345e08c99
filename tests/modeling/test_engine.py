"""The packed, fused model gives what transformers and PEFT give, row by row."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from datatunerx.modeling.adapters import AdapterShape, UnknownTarget, make_adapter, resolve_targets
from datatunerx.modeling.base import freeze, load_base
from datatunerx.modeling.frozen import FrozenWeight
from datatunerx.modeling.loss import nll_and_gradient
from datatunerx.modeling.peft_format import UnreadableAdapter, adapter_files, load_adapter
from datatunerx.modeling.stream import Part, filler, pack

# PEFT 0.21 asks transformers 5.23 by an old name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


def stir(adapter, seed=0):
    """Give the adapter weights that do something."""
    generator = torch.Generator().manual_seed(seed)
    adapter.flat.copy_(torch.randn(adapter.flat.shape, generator=generator) * 0.2)
    return adapter


def write(folder, adapter):
    folder.mkdir()
    for name, content in adapter_files(adapter, "base").items():
        (folder / name).write_bytes(content)
    return folder


def logits(base, parts):
    with torch.no_grad():
        return base.head.ahead(base.pass_through(pack(parts)))


def test_packed_rows_get_the_logits_transformers_gives_each_alone(network, base, make_rows):
    rows = make_rows([5, 1, 17, 9])

    ours = logits(base, [Part(None, rows)]).split([5, 1, 17, 9])

    for row, mine in zip(rows, ours, strict=True):
        assert torch.allclose(mine, network(row[None]).logits[0], atol=1e-5)


def test_a_saved_adapter_gives_peft_the_same_logits(network, base, make_rows, tmp_path):
    shape = AdapterShape(rank=3, alpha=5.0, targets=("q_proj", "down_proj"))
    adapter = stir(make_adapter("a", shape, base.widths, seed=1))
    row = make_rows([12])[0]

    theirs = PeftModel.from_pretrained(copy.deepcopy(network), write(tmp_path / "a", adapter))

    assert torch.allclose(logits(base, [Part(adapter, [row])]), theirs(row[None]).logits[0], atol=1e-5)


def test_an_adapter_on_some_layers_only_is_saved_for_those_layers(network, base, make_rows, tmp_path):
    shape = AdapterShape(rank=2, targets=("layers.1.mlp.up_proj",))
    adapter = stir(make_adapter("a", shape, base.widths, seed=1))
    row = make_rows([8])[0]

    theirs = PeftModel.from_pretrained(copy.deepcopy(network), write(tmp_path / "a", adapter))

    assert torch.allclose(logits(base, [Part(adapter, [row])]), theirs(row[None]).logits[0], atol=1e-5)


def test_an_adapter_read_back_is_the_adapter_saved(base, tmp_path):
    adapter = stir(make_adapter("a", AdapterShape(rank=3, alpha=7, dropout=0.1), base.widths, seed=1))

    found = load_adapter(write(tmp_path / "a", adapter), base)

    assert torch.equal(found.flat, adapter.flat)
    assert (found.shape.rank, found.shape.alpha, found.shape.dropout) == (3, 7.0, 0.1)


def test_an_adapter_peft_wrote_is_read(network, base, make_rows, tmp_path):
    theirs = get_peft_model(copy.deepcopy(network), LoraConfig(r=4, target_modules="all-linear"))
    for name, weight in theirs.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.2)
    theirs.save_pretrained(tmp_path / "a")
    row = make_rows([12])[0]

    adapter = load_adapter(tmp_path / "a", base)

    assert torch.allclose(logits(base, [Part(adapter, [row])]), theirs.eval()(row[None]).logits[0], atol=1e-5)


def test_an_adapter_of_another_base_is_refused_by_name(base, tmp_path):
    other = {name: (a * 2, b) for name, (a, b) in base.widths.items()}
    folder = write(tmp_path / "a", make_adapter("a", AdapterShape(), other, seed=1))

    with pytest.raises(UnreadableAdapter, match="adapter_model.safetensors.*q_proj"):
        load_adapter(folder, base)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("adapter_model.safetensors", b"\xff" * 64, "adapter_model.safetensors: cannot be read"),
        ("adapter_config.json", b"{", "adapter_config.json: cannot be read"),
        ("adapter_config.json", b"[]", "adapter_config.json: cannot be read"),
        ("adapter_config.json", b'{"peft_type": "LORA"}', "adapter_config.json: r is missing"),
    ],
)
def test_a_broken_adapter_is_refused_by_its_file(base, tmp_path, file, content, words):
    folder = write(tmp_path / "a", make_adapter("a", AdapterShape(), base.widths, seed=1))
    (folder / file).write_bytes(content)

    with pytest.raises(UnreadableAdapter, match=words):
        load_adapter(folder, base)


def test_a_target_that_matches_no_layer_is_named_with_what_there_is(base):
    with pytest.raises(UnknownTarget, match="'qproj'.*down_proj.*q_proj"):
        resolve_targets(["qproj"], list(base.widths))


def test_gradients_are_those_peft_and_autograd_find(network, make_rows, tmp_path):
    """float64, all linear layers, a weighted loss on some rows only."""
    base = freeze(copy.deepcopy(network).double())
    shape = AdapterShape(rank=3, alpha=6)
    adapter = stir(make_adapter("a", shape, base.widths, seed=1, dtype=torch.float64))
    theirs = PeftModel.from_pretrained(
        copy.deepcopy(network).double(), write(tmp_path / "a", adapter), is_trainable=True,
        autocast_adapter_dtype=False,
    )  # fmt: skip
    row = make_rows([12])[0]
    at, labels = torch.tensor([3, 4, 10]), row[[4, 5, 11]]
    weights = torch.tensor([0.5, 0.2, 1.0], dtype=torch.float64)

    hidden = base.pass_through(pack([Part(adapter, [row])]))
    nll, grad = nll_and_gradient(base.head, hidden.detach()[at], labels, weights)
    hidden.backward(torch.zeros_like(hidden).index_copy_(0, at, grad))
    expected = nn.functional.cross_entropy(theirs(row[None]).logits[0, at], labels, reduction="none")
    (expected * weights).sum().backward()

    assert torch.allclose(nll, expected, atol=1e-6)
    found = dict(theirs.named_parameters())
    for name, pair in adapter.pairs.items():
        prefix = f"base_model.model.{name}"
        for mine, letter in ((pair.grad_a_RD, "A"), (pair.grad_b_RO.T, "B")):
            # transformers' norm goes through float32 even here
            theirs_too = found[f"{prefix}.lora_{letter}.default.weight"].grad
            assert torch.allclose(mine, theirs_too, rtol=1e-5, atol=1e-6)


def test_each_adapter_touches_its_own_rows_only(base, make_rows):
    """Two adapters of different rank beside each other, and the base between them."""
    rows = make_rows([7, 5, 9])
    one = stir(make_adapter("one", AdapterShape(rank=2), base.widths, seed=1), 1)
    two = stir(make_adapter("two", AdapterShape(rank=5, targets=("v_proj",)), base.widths, seed=2), 2)
    ways = [one, None, two]

    together = logits(base, [Part(way, [row]) for way, row in zip(ways, rows, strict=True)]).split([7, 5, 9])

    for way, row, mine in zip(ways, rows, together, strict=True):
        assert torch.equal(mine, logits(base, [Part(way, [row])]))


def test_poison_in_one_adapter_reaches_nobody_else(base, make_rows):
    rows = make_rows([7, 5])
    bad, good = (make_adapter(n, AdapterShape(), base.widths, seed=s) for n, s in (("bad", 1), ("good", 2)))
    stir(good).grad.zero_()
    bad.flat.fill_(float("nan"))

    def pass_back(parts):
        good.grad.zero_()
        stream = pack([*parts, *filler(parts)])
        hidden = base.pass_through(stream)
        mine = torch.zeros_like(hidden)
        for segment in stream.segments:
            mine[segment.start : segment.stop] = 1
        hidden.backward(mine)
        return good.grad.clone()

    alone = pass_back([Part(good, [rows[1]])])
    beside = pass_back([Part(bad, [rows[0]]), Part(good, [rows[1]])])

    assert torch.isnan(bad.grad).any()
    assert torch.equal(alone, beside)


def test_dropout_zeroes_its_share_and_depends_on_the_seed_alone(base, make_rows):
    rows = make_rows([40, 40])
    adapter = stir(make_adapter("a", AdapterShape(dropout=0.5), base.widths, seed=1))

    def way(parts):
        with torch.no_grad():
            return base.pass_through(pack(parts))

    alone = way([Part(adapter, [rows[0]], dropout_seed=7)])
    beside = way([Part(adapter, [rows[1]], dropout_seed=8), Part(adapter, [rows[0]], dropout_seed=7)])

    assert torch.equal(beside[40:], alone)
    assert not torch.equal(way([Part(adapter, [rows[0]], dropout_seed=8)]), alone)
    assert not torch.equal(way([Part(adapter, [rows[0]])]), alone)


def test_gradients_with_dropout_are_the_slopes_of_the_loss(network, make_rows):
    base = freeze(copy.deepcopy(network).double())
    row = make_rows([9])[0]
    shape = AdapterShape(rank=2, dropout=0.3)
    adapter = stir(make_adapter("a", shape, base.widths, seed=1, dtype=torch.float64))

    def loss():
        hidden = base.pass_through(pack([Part(adapter, [row], dropout_seed=5)]))
        hidden.backward(torch.ones_like(hidden))
        return float(hidden.detach().sum())

    loss()
    found = adapter.grad.clone()
    for index in torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:12].tolist():
        before = float(adapter.flat[index])
        adapter.flat[index] = before + 1e-6
        up = loss()
        adapter.flat[index] = before - 1e-6
        down = loss()
        adapter.flat[index] = before
        assert (up - down) / 2e-6 == pytest.approx(float(found[index]), rel=1e-4, abs=1e-6)


def test_a_row_of_a_frozen_product_does_not_depend_on_the_rows_beside_it():
    generator = torch.Generator().manual_seed(0)
    weight = FrozenWeight(torch.randn(96, 64, generator=generator))
    x = torch.randn(300, 64, generator=generator)

    whole, back = weight.ahead(x), weight.back(weight.ahead(x))

    for start, stop in ((0, 1), (3, 20), (100, 251)):
        assert torch.equal(weight.ahead(x[start:stop]), whole[start:stop])
        assert torch.equal(weight.back(whole[start:stop]), back[start:stop])
    assert torch.allclose(whole, x @ weight.weight_OD.T, atol=1e-4)


def test_a_folder_is_loaded_frozen_and_says_what_transformers_says(model_folder, make_rows):
    from transformers import AutoModelForCausalLM

    row = make_rows([10])[0]
    theirs = AutoModelForCausalLM.from_pretrained(model_folder)

    assert torch.allclose(
        logits(load_base(model_folder), [Part(None, [row])]), theirs(row[None]).logits[0], atol=1e-5
    )


def test_a_sliding_window_hides_what_lies_before_it(make_rows):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    network = MistralForCausalLM(
        MistralConfig(
            vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, sliding_window=4,
        )
    ).eval()  # fmt: skip
    row = make_rows([15])[0]

    assert torch.allclose(
        logits(freeze(copy.deepcopy(network)), [Part(None, [row])]), network(row[None]).logits[0], atol=1e-5
    )


def test_freed_tensors_are_not_asked_of_the_kernel_again():
    """In a process of its own: the setting lasts as long as the process."""
    import subprocess
    import sys

    script = """
import resource, torch
from datatunerx.modeling.heap import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
torch.ones(16 << 20)
print(faults(), keep_freed_memory(), torch.ones(16 << 20).sum() and faults())
"""
    before, kept, after = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()

    assert kept == "True"
    assert int(after) < int(before) / 2
