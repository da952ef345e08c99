"""An OpenAI-shaped endpoint as a process of its own, which answers as it is told."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SERVER = Path(__file__).parent / "fake_endpoint.py"


@dataclass
class Fake:
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
def fake(tmp_path):
    folder = tmp_path / "endpoint"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, str(SERVER), str(folder)])
    port = folder / "port"
    for _ in range(500):
        if port.exists():
            break
        time.sleep(0.02)
    yield Fake(f"http://127.0.0.1:{port.read_text()}/v1", folder)
    process.terminate()
    process.wait(timeout=10)
