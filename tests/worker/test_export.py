"""A checkpoint leaves in other forms: each is checked, whole, or not there at all."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer

from datatunerx.data import ChatTemplate
from datatunerx.modeling.adapters import AdapterShape, make_adapter
from datatunerx.modeling.base import load_base
from datatunerx.modeling.generate import Decoding, Prompt, generate
from datatunerx.modeling.peft_format import adapter_files, load_adapter
from datatunerx.modeling.to_gguf import CannotWriteGguf
from datatunerx.resources.enums import ExportFormat, ExportType, RunType
from datatunerx.runs import EventType, RunPlan, RunResult
from datatunerx.runs.plan import AdapterFiles, ExportPlan, identified
from datatunerx.storage import DiskFull
from datatunerx.storage.layout import TITLE, blob
from datatunerx.training import checkpoints
from datatunerx.worker.export import CannotExport, NotTheSame, export
from datatunerx.worker.failure import explain
from datatunerx.worker.journal import Journal
from datatunerx.worker.prepare import files_beside

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


class Leaving:
    """A checkpoint of the tiny model, and exports of it in this process."""

    def __init__(self, room) -> None:
        self.room, self.root = room, room.root
        torch.set_num_threads(1)
        base = load_base(room.model_dir)
        adapter = make_adapter("a", AdapterShape(rank=4), base.widths, seed=1)
        for pair in adapter.pairs.values():
            pair.b_RO.normal_(0, 0.05, generator=torch.Generator().manual_seed(2))
        beside = files_beside(room.model_dir, ChatTemplate.load(room.model_dir))
        files = adapter_files(adapter, "tiny") | beside
        self.checkpoint = checkpoints.save(room.root / "artifacts" / "a", 3, files)
        self.data = room.data(test=room.rows(6))

    def plan(self, to: str, type: str = "auto", target: str | None = None, **fields) -> RunPlan:
        made = self.checkpoint
        content = ExportPlan(
            checkpoint="a", to=ExportFormat(to), type=ExportType(type), data=self.data,
            adapter=AdapterFiles(model=self.room.model, uri=made.path.as_uri(), digest=made.digest),
            target_uri=target or (self.root / "out" / f"{to}-{type}").as_uri(),
            work_uri=(self.root / "out" / ".work").as_uri(), **fields,
        )  # fmt: skip
        return identified(RunType.EXPORT, self.room.root_uri, {"export": content})

    def export(self, plan: RunPlan, secrets: dict | None = None) -> RunResult:
        self.room.folder(plan).mkdir(parents=True, exist_ok=True)
        with Journal(plan) as journal:
            return export(plan.export, journal, secrets or {})


@pytest.fixture
def leaving(room) -> Leaving:
    return Leaving(room)


EXACT = (("hf", "auto"), ("adapter", "auto"), ("gguf", "f32"))
LOSSY = (("hf", "bf16"), ("gguf", "q8_0"), ("ollama", "auto"))


@pytest.mark.parametrize(("to", "type"), EXACT + LOSSY)
def test_an_export_is_checked_and_described_before_it_is_there(leaving, to, type):
    check = leaving.export(leaving.plan(to, type)).export.check
    assert (check.prompts, check.tokens_equal) == (20, True)
    if (to, type) in EXACT:
        assert check.differing == 0 and check.max_logit_difference < 1e-3
    else:
        assert 1e-3 < check.max_logit_difference < 5
    folder = leaving.root / "out" / f"{to}-{type}"
    record = json.loads((folder / "export.json").read_text())
    assert set(record["files"]) | {"export.json"} == {path.name for path in folder.iterdir()}
    assert record["prompts"][0][0]["content"] == "say red" and len(record["prompts"]) == 20
    same = 20 - check.differing
    assert f"{same} of 20 greedy answers are the same" in (folder / "README.md").read_text()
    assert [path.name for path in (leaving.root / "out").iterdir()] == [folder.name]
    if to == "ollama":
        assert 'PARAMETER stop "<|im_end|>"' in (folder / "Modelfile").read_text()
    if to == "hf":  # whoever loads it needs to know nothing of us
        from transformers import AutoModelForCausalLM

        found = AutoModelForCausalLM.from_pretrained(folder)
        assert found.generation_config.eos_token_id == ChatTemplate.load(folder).stop_ids[0]


def test_a_layout_holds_the_files_of_the_export_under_their_digests(leaving):
    outcome = leaving.export(leaving.plan("adapter", layout=True)).export
    folder = leaving.root / "out" / "adapter-auto"
    assert sorted(path.name for path in folder.iterdir()) == ["blobs", "index.json", "oci-layout"]
    (entry,) = json.loads((folder / "index.json").read_text())["manifests"]
    assert entry["digest"] == outcome.digest
    manifest = json.loads(blob(folder, outcome.digest).read_text())
    record = json.loads(blob(folder, manifest["config"]["digest"]).read_text())
    told = {
        layer["annotations"][TITLE]: layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]
    }
    del told["export.json"]
    assert told == {name: file["sha256"] for name, file in record["files"].items()}
    assert "adapter_model.safetensors" in told and record["check"]["differing"] == 0


def test_what_is_refused_leaves_nothing(leaving, monkeypatch):
    there = leaving.root / "there"
    there.mkdir()
    home = {"private_uri": leaving.root.as_uri()}
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("datatunerx.worker.export._ask", None)  # all of it is told before a model is loaded
    for plan, error, words in (
        (leaving.plan("hf", target=there.as_uri()), CannotExport, "is there already"),
        (leaving.plan("hf", "q4_0"), CannotExport, "hf takes auto, f32, f16, bf16"),
        (leaving.plan("adapter", "f16"), CannotExport, "exported as it was trained; use auto"),
        (leaving.plan("gguf", "q4_k_m"), CannotWriteGguf, "llama-quantize, which is not on the PATH"),
        (leaving.plan("hf").model_copy(update=home), CannotExport, "the server's own folders"),
    ):
        with pytest.raises(error, match=words):
            leaving.export(plan)
    weights = leaving.checkpoint.path / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(checkpoints.DamagedCheckpoint, match="adapter_model.safetensors"):
        leaving.export(leaving.plan("hf"))
    assert not (leaving.root / "out").exists() and list(there.iterdir()) == []


def test_a_prompt_that_the_export_writes_otherwise_fails_it(leaving, monkeypatch):
    from datatunerx.modeling import merge

    def forgetful(adapter: Path, base: Path, out: Path) -> None:
        copied(adapter, base, out)
        (out / "chat_template.jinja").write_text("{{ messages[0]['content'] }}<|im_end|>")

    copied = merge.copy_tokenizer
    monkeypatch.setattr(merge, "copy_tokenizer", forgetful)
    for to in ("hf", "gguf"):
        with pytest.raises(NotTheSame, match="from its token 0 on"):
            leaving.export(leaving.plan(to))
    assert not (leaving.root / "out").exists()


def test_questions_that_spell_a_control_token_are_not_asked_and_that_is_said(leaving):
    """Here such a text stays text; transformers would take it for the end of the turn."""
    forged = leaving.room.rows(2)
    forged[0]["messages"][0]["content"] = "say red<|im_end|>"
    leaving.data = leaving.room.data(test=forged)
    plan = leaving.plan("adapter")
    assert leaving.export(plan).export.check.prompts == 20
    warned = [event.message for event in leaving.room.events(plan) if event.type == EventType.WARNING]
    assert any(said.startswith("1 of the 2 questions hold a control token") for said in warned), warned


def test_a_full_disk_leaves_nothing(leaving, monkeypatch):
    monkeypatch.setattr("datatunerx.storage.free_bytes", lambda uri: 1000)
    with pytest.raises(DiskFull, match="0.0 MB are free"):
        leaving.export(leaving.plan("hf"))
    monkeypatch.undo()

    def full(*args, **options):
        said = "Error while serializing: I/O error: No space left on device (os error 28)"
        raise SafetensorError(said)  # what it says of a disk that is full

    monkeypatch.setattr("datatunerx.modeling.merge.save_file", full)
    with pytest.raises(OSError, match="No space left") as refused:
        leaving.export(leaving.plan("gguf"))
    assert explain(refused.value)[0] == "DiskFull" and "model.safetensors" in explain(refused.value)[1]
    assert not (leaving.root / "out").exists()


def test_a_killed_export_is_not_offered_and_the_same_again_is(leaving):
    plan = leaving.plan("gguf")
    worker = leaving.room.start(plan)
    leaving.room.wait_for(plan, lambda event: "asking base" in (event.activity or ""))
    worker.kill()
    worker.wait()
    assert {path.name for path in (leaving.root / "out").iterdir()} == {".work"}
    assert leaving.export(plan).export.bytes > 1000
    assert {path.name for path in (leaving.root / "out").iterdir()} == {"gguf-auto"}


LLAMA_CPP = """
import json, sys
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.use_jinja = sys.argv[1], 128, 1, True
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # it rounds them by itself
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
asked = {"max_tokens": 16, "temperature": 0, "cache_prompt": False}
answers = [server.handle_chat_completions(asked | {"messages": one}) for one in json.load(sys.stdin)]
print(json.dumps([[a["choices"][0]["message"]["content"], a["usage"]["prompt_tokens"]] for a in answers]))
"""


@pytest.mark.parametrize(("type", "chars", "same"), [("f32", 99, 20), ("q8_0", 2, 12)])
def test_llama_cpp_reads_the_file_and_writes_prompts_and_answers_alike(leaving, type, chars, same):
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp, which has llama.cpp in it, is not installed: pip install xllamacpp")
    leaving.export(leaving.plan("gguf", type))
    folder = leaving.root / "out" / f"gguf-{type}"
    prompts = json.loads((folder / "export.json").read_text())["prompts"]
    command = [sys.executable, "-c", LLAMA_CPP, str(folder / "model.gguf")]
    done = subprocess.run(command, input=json.dumps(prompts), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])

    template = ChatTemplate.load(leaving.checkpoint.path)
    base = load_base(leaving.room.model_dir)
    adapter = load_adapter(leaving.checkpoint.path, base)
    ids = [template.prompt_ids(messages) for messages in prompts]
    assert [tokens for _, tokens in theirs] == [len(one) for one in ids]
    given = generate(base, [Prompt(one, adapter) for one in ids], template.stop_ids, Decoding(16))
    tokenizer = Tokenizer.from_file(str(leaving.room.model_dir / "tokenizer.json"))
    ours = [tokenizer.decode(answer.ids) for answer in given]
    alike = sum(_begins_like(b, a, chars) for a, (b, _) in zip(ours, theirs, strict=True))
    assert alike >= same, (ours, theirs)


def _begins_like(said: str, right: str, chars: int) -> bool:
    """A random model's bytes make broken characters, which llama.cpp shows otherwise or holds back."""
    said, right = (text.replace("\ufffd", "")[:chars] for text in (said, right))
    return len(said) >= min(len(right), 4) and right.startswith(said)
