"""What several rooms' tests need: a tiny model that trains in seconds, and stores on loopback."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
COLOURS = ("red", "green", "blue")
REGISTRY_HASH = "$2b$04$Ku9yAPCWU/CuV43pOY6p8O2rnAhhToDstuUpfkeiqdTQnTSEr9pRG"
"""Of pass-word-1, by bcrypt: what ann shows the registry of the tests."""
MOTO = (os.environ.get("DTX_MOTO_PYTHON"), Path(__file__).parents[1] / ".venv/moto/bin/python")
"""The S3 store of the tests, in an environment of its own: it wants other versions of what we use too."""


def save_tokenizer(folder: Path) -> int:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([f"say {colour}" for colour in COLOURS] * 9, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROL])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>",
        "bos_token": "<|endoftext|>", "chat_template": CHATML,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab_size()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A random Llama of two layers with a byte-level tokenizer; it learns three colours in a few steps."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-llama")
    vocabulary = save_tokenizer(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        tie_word_embeddings=False, initializer_range=0.4,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def colour_rows() -> list[dict]:
    """A question names a colour, and the answer is that colour."""
    said = [COLOURS[n % 3] for n in range(24)]
    return [
        {"messages": [{"role": "user", "content": f"say {w}"}, {"role": "assistant", "content": w}]}
        for w in said
    ]


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """An S3-compatible store in a process of its own."""
    python = next((str(path) for path in MOTO if path and Path(path).exists()), None)
    if python is None:
        pytest.skip("the S3 store of the tests is not installed; make moto")
    process = subprocess.Popen(
        [python, "-c", SERVE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


SERVE = """
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
server._thread.join()
"""


class Store:
    """The S3 store as an administrator sees it."""

    def __init__(self, url: str) -> None:
        from pyarrow import fs

        self.url = url
        self._fs = fs.S3FileSystem(
            access_key="admin", secret_key="admin", endpoint_override=url.removeprefix("http://"),
            scheme="http", region="us-east-1", allow_bucket_creation=True,
        )  # fmt: skip
        self._fs.create_dir("data")

    def put(self, path: str, content: bytes) -> None:
        with self._fs.open_output_stream(path, compression=None) as file:
            file.write(content)

    def member(self, name: str) -> dict[str, str]:
        """The keys of a new user, who is known and may do nothing."""
        made = {}
        for action in ("CreateUser", "CreateAccessKey"):
            signed = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/iam/aws4_request, Signature=0"
            body = f"Action={action}&UserName={name}&Version=2010-05-08".encode()
            asked = urllib.request.Request(self.url, body, {"Authorization": signed}, method="POST")
            made[action] = urllib.request.urlopen(asked).read().decode()
        found = {
            tag: made["CreateAccessKey"].split(f"<{tag}>")[1].split("<")[0]
            for tag in ("AccessKeyId", "SecretAccessKey")
        }
        return {"accessKeyId": found["AccessKeyId"], "secretAccessKey": found["SecretAccessKey"]}

    def guard(self, actions: int = 0) -> None:
        """From here on every request must be signed by somebody who is known."""
        self._post("reset-auth", str(actions))

    def reset(self) -> None:
        self.guard(10**9)
        self._post("reset")

    def _post(self, path: str, body: str = "") -> None:
        headers = {"Content-Type": "text/plain"}
        asked = urllib.request.Request(f"{self.url}/moto-api/{path}", body.encode(), headers, method="POST")
        urllib.request.urlopen(asked).read()


@pytest.fixture
def s3(s3_url: str) -> Iterator[Store]:
    store = Store(s3_url)
    yield store
    store.reset()


@dataclass
class FakeEndpoint:
    """An OpenAI-shaped endpoint, as a process of its own, which answers as it is told."""

    url: str
    folder: Path

    def script(self, **told) -> None:
        """What it does from now on: see fake_endpoint.py."""
        (self.folder / "script.json").write_text(json.dumps(told))

    @property
    def asked(self) -> list[dict]:
        """Every request it was sent, with its Authorization."""
        path = self.folder / "asked.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def fake_endpoint(tmp_path):
    folder = tmp_path / "endpoint"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, str(Path(__file__).parent / "fake_endpoint.py"), str(folder)])
    port = folder / "port"
    for _ in range(500):
        if port.exists():
            break
        time.sleep(0.02)
    yield FakeEndpoint(f"http://127.0.0.1:{port.read_text()}/v1", folder)
    process.terminate()
    process.wait(timeout=10)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Debian's registry on loopback, with one user."""
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed; apt-get install docker-registry")
    (tmp_path / "htpasswd").write_text(f"ann:{REGISTRY_HASH}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = {
        "version": 0.1, "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "s"},
        "auth": {"htpasswd": {"realm": "r", "path": str(tmp_path / "htpasswd")}},
    }  # fmt: skip
    (tmp_path / "config.yml").write_text(json.dumps(config))
    with (tmp_path / "registry.log").open("wb") as log:
        command = ["docker-registry", "serve", str(tmp_path / "config.yml")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/")
        except urllib.error.HTTPError as asks_who_we_are:
            asks_who_we_are.close()
            break
        except OSError:
            time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait()
