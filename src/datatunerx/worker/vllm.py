"""The same plan served by vLLM, where it is installed: an argv list, its key in its environment.

vLLM serves what it was started with, so it is started again when other models are wanted; and it does not
tell us of requests, so it is never idle.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

import orjson

from datatunerx import storage
from datatunerx.modeling.peft_format import CONFIG
from datatunerx.runs import (
    Event,
    EventType,
    ModelState,
    RunResult,
    ServedModel,
    ServePlan,
    ServingState,
    Verb,
)
from datatunerx.worker.commands import Commands
from datatunerx.worker.journal import Journal
from datatunerx.worker.serve import LOOK_SECONDS, WantedModels, ended
from datatunerx.worker.stopping import Stopping

GRACE_SECONDS = 10


class ExtraMissing(RuntimeError):
    """An engine that is not installed here."""


def command(program: str, plan: ServePlan, models: Sequence[ServedModel], port: int) -> list[str]:
    """How vLLM is started for these models. Every base name is a served name, every adapter a LoRA module."""
    adapters = [model for model in models if model.adapter_uri is not None]
    names = [model.name for model in models if model.adapter_uri is None] or [plan.model.name]
    argv = [
        program, "serve", str(storage.local_path(plan.model.uri)), "--host", "127.0.0.1", "--port", str(port),
        "--dtype", plan.precision.value, "--max-num-seqs", str(plan.max_rows),
        "--served-model-name", *names,
    ]  # fmt: skip
    if adapters:
        argv += [
            "--enable-lora",
            "--max-loras",
            str(min(len(adapters), 32)),
            "--max-lora-rank",
            str(_rank(adapters)),
        ]
        argv += [
            "--lora-modules",
            *(f"{one.name}={storage.local_path(str(one.adapter_uri))}" for one in adapters),
        ]
    return argv


def _rank(adapters: Sequence[ServedModel]) -> int:
    """The smallest rank that vLLM takes and every adapter fits in."""
    ranks = []
    for one in adapters:
        config = storage.local_path(str(one.adapter_uri)) / CONFIG
        ranks.append(int(orjson.loads(config.read_bytes())["r"]))
    return next((allowed for allowed in (8, 16, 32, 64, 128, 256, 320, 512) if allowed >= max(ranks)), 512)


def serve_by_vllm(plan: ServePlan, journal: Journal, stopping: Stopping, token: str) -> RunResult:
    """Raises `ExtraMissing` where vLLM is not installed."""
    program = shutil.which("vllm")
    if program is None:
        raise ExtraMissing(
            "engine vllm needs vLLM, which is not installed beside this worker; pip install "
            "'datatunerx[vllm]' on a machine with CUDA, or set spec.engine to transformers"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wanted = WantedModels(plan, journal)
    wanted.changed()
    journal.activity(f"starting vLLM for {plan.model.name}")
    commands = Commands(journal)
    with stopping.deferred():
        while True:
            models = wanted.now().models
            argv = command(program, plan, models, port)
            process = subprocess.Popen(argv, env=os.environ | {"VLLM_API_KEY": token})
            try:
                if _ends(process, journal, stopping, commands, wanted, port):
                    return ended(journal, "Stopped", "stopped")
            finally:
                _end(process)


def _ends(
    process: "subprocess.Popen[bytes]", journal: Journal, stopping: Stopping, commands: Commands,
    wanted: WantedModels, port: int,
) -> bool:  # fmt: skip
    """True when the run is to end, False when other models are wanted."""
    told = False
    while not stopping.asked:
        time.sleep(LOOK_SECONDS)
        if process.poll() is not None:
            raise RuntimeError(f"vLLM ended with exit code {process.returncode}; the log has its words")
        if not told and _listens(port):
            states = [ModelState(name=model.name, ready=True) for model in wanted.now().models]
            state = ServingState(url=f"http://127.0.0.1:{port}/v1", models=states)
            journal.write(Event(type=EventType.SERVING, serving=state))
            told = True
        if any(one.verb is Verb.STOP for one in commands.new()):
            return True
        if wanted.changed():
            return False
    return True


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
