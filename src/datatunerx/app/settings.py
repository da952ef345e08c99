"""What the environment says. Read here and nowhere else in the control plane."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PORT = 7443


class SettingsError(Exception):
    """A variable holds what it cannot; the message names it and what it takes."""


@dataclass(frozen=True)
class Settings:
    home: Path
    """Everything that is kept: database, keys, runs, artifacts, models, caches."""
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    """0 takes any free port."""
    tls_certificate: Path | None = None
    """Served instead of the self-made one, with `tls_key`."""
    tls_key: Path | None = None
    allow_paths: tuple[Path, ...] = ()
    """Folders below which others than the machine's owner may name files."""
    upload_bytes: int = 1 << 40
    """Uploads that one namespace may keep, unfinished ones included."""
    poll_seconds: float = 1.0
    """How often a run that works is looked at."""
    gpus: int | None = None
    """Device slots; None counts the GPUs."""
    other_kubeconfig: Path | None = None
    """Commands go to this server instead of the one of `home`."""
    kubectl_kubeconfig: str = ""
    """What KUBECONFIG says. Only the operator asks."""
    controllers: bool = True
    """Whether `dtx up` acts on the objects; without, an operator does."""

    @property
    def kubeconfig(self) -> Path:
        """Where commands find their server."""
        return self.other_kubeconfig or self.home / "kubeconfig"


def settings_from(environment: Mapping[str, str] = os.environ) -> Settings:
    """DTX_HOME, _HOST, _PORT, _TLS_CERT, _TLS_KEY, _ALLOW_PATHS, _UPLOAD_BYTES, _POLL_SECONDS, _GPUS,
    _KUBECONFIG, and KUBECONFIG. Raises SettingsError.
    """
    gpus = environment.get("DTX_GPUS")
    return Settings(
        home=Path(environment.get("DTX_HOME") or "~/.dtx").expanduser().absolute(),
        host=environment.get("DTX_HOST") or "127.0.0.1",
        port=int(_number(environment, "DTX_PORT", DEFAULT_PORT, 0, 65535, whole=True)),
        tls_certificate=_path(environment, "DTX_TLS_CERT"),
        tls_key=_path(environment, "DTX_TLS_KEY"),
        allow_paths=folders(environment.get("DTX_ALLOW_PATHS", "").split(os.pathsep), "DTX_ALLOW_PATHS"),
        upload_bytes=int(_number(environment, "DTX_UPLOAD_BYTES", 1 << 40, 1, 1 << 60, whole=True)),
        poll_seconds=_number(environment, "DTX_POLL_SECONDS", 1.0, 0.05, 60),
        gpus=int(_number(environment, "DTX_GPUS", 0, 0, 64, whole=True)) if gpus else None,
        kubectl_kubeconfig=environment.get("KUBECONFIG") or "",
        other_kubeconfig=_path(environment, "DTX_KUBECONFIG"),
    )


def folders(texts: Iterable[str | Path], named_by: str) -> tuple[Path, ...]:
    """Absolute paths of folders that are there. Raises SettingsError."""
    found = tuple(Path(text).expanduser().absolute() for text in texts if str(text))
    for folder in found:
        if not folder.is_dir():
            raise SettingsError(f"{named_by}: {folder} is no folder; name one that is there")
    return found


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    text = environment.get(name)
    return Path(text).expanduser().absolute() if text else None


def _number(
    environment: Mapping[str, str], name: str, default: float, low: float, high: float, whole: bool = False
) -> float:
    text = environment.get(name) or str(default)
    kind = "whole number" if whole else "number"
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise SettingsError(f"{name}={text}: must be a {kind} from {low:g} to {high:g}") from None
    if not low <= value <= high:
        raise SettingsError(f"{name}={text}: must be a {kind} from {low:g} to {high:g}")
    return value
