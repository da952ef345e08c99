"""Where a base model comes from: a source URI in, local files out, checked before anything loads them.

pkg://module/file.gguf      a file or folder that an installed Python package ships
file:///folder, /folder     a folder in Hugging Face's layout, or a .gguf file
hf://org/name@revision      a hub repository (HF_ENDPOINT and HF_TOKEN are honoured); never its pickles
modelscope://org/name@revision, s3://bucket/folder, s3://bucket/file.gguf, https://host/file.gguf
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

from datatunerx.runs.files import path_of
from datatunerx.storage.errors import DiskFull, Refused, StorageError
from datatunerx.storage.fetch import fetch, key_of, telling
from datatunerx.storage.hubs import hub_of
from datatunerx.storage.objects import publish_dir
from datatunerx.storage.paths import CheckPlace, packaged
from datatunerx.storage.remote import Credentials, listed

SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures whose every layer the engine knows; another may cap or scale what we would not see."""
TAKEN = "hf://org/name@revision, modelscope://org/name, s3://bucket/folder, file:///folder, pkg://module/file.gguf"
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


def resolve(
    source: str,
    downloads: Path,
    credentials: Credentials | None = None,
    tell: Callable[[str], None] = lambda text: None,
    check_place: CheckPlace = lambda path, uri: None,
) -> LocalFiles:
    """The files of a source, fetched under `downloads` if they are far away.

    `check_place` is called with every local one. Raises `UnusableModel`.
    """
    scheme = urlsplit(source).scheme
    if scheme in ("hf", "s3", "modelscope", "http", "https"):
        who = credentials or Credentials()
        try:
            path = (
                _from_hub(source, downloads, who)
                if scheme == "hf"
                else _fetched(source, downloads, who, tell)
            )
        except DiskFull:  # the run waits for space
            raise
        except StorageError as error:
            raise UnusableModel(str(error)) from error
    elif scheme == "pkg":
        path = _from_package(source)
    elif scheme in ("", "file"):
        path = path_of(source).expanduser()
        for part in (path, *(path.iterdir() if path.is_dir() else ())):
            check_place(part, source)
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


def _fetched(source: str, downloads: Path, credentials: Credentials, tell: Callable[[str], None]) -> Path:
    """One .gguf file, or a folder's files side by side, fetched once for their versions."""
    is_file = source.partition("?")[0].endswith(".gguf")
    if is_file or source.startswith(("http://", "https://")):
        if not is_file:
            raise UnusableModel(f"{source}: a web server lists no files; name a .gguf file")
        [file] = listed(source, credentials)
        copy = fetch(file, downloads, on_progress=telling(tell, file.uri))
        return copy.folder / copy.names[0]
    pattern = f"{source.rstrip('/')}/*" if source.startswith("s3://") else source
    found = [
        file for file in listed(pattern, credentials) if "/" not in file.uri[len(source.rstrip("/")) + 1 :]
    ]
    check_names([file.name for file in found], source)
    wanted = [file for file in found if any(fnmatch(file.name, form) for form in _WANTED)]
    folder = downloads / key_of(source, " ".join(f"{file.name} {file.version}" for file in wanted), "model")
    if folder.is_dir():
        return folder
    part = downloads / f".{folder.name}.{os.getpid()}.part"
    part.mkdir(parents=True, exist_ok=True)
    copies = [fetch(file, downloads, on_progress=telling(tell, file.uri)) for file in wanted]
    for file, copy in zip(wanted, copies, strict=True):
        (part / file.name).unlink(missing_ok=True)
        os.link(copy.folder / copy.names[0], part / file.name)
    publish_dir(part, folder)
    for copy in copies:  # their bytes stay in the folder
        shutil.rmtree(copy.folder.parent)
    return folder


def _from_package(source: str) -> Path:
    try:
        path = packaged(source).resolve()
    except Refused as error:
        raise UnusableModel(str(error)) from error
    if not path.exists():
        folder = next(parent for parent in path.parents if parent.is_dir())
        there = ", ".join(sorted(p.name for p in folder.iterdir() if p.suffix in (".gguf", ".safetensors")))
        raise UnusableModel(f"{source}: {folder.name} has no {path.name}; it has {there or 'no model'}")
    return path


def _from_hub(source: str, downloads: Path, credentials: Credentials) -> Path:
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
    endpoint, given = hub_of(credentials, source)
    token = given or False  # None would be read as: find one on this machine
    if named := credentials.get("token") + credentials.endpoint + credentials.get("endpoint"):
        # A hub that is away asks nobody who they are, so what it lent stays with those who name the same.
        downloads /= key_of("", named, "hub")
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
