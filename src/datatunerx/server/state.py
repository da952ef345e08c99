"""What a server keeps in its home: database, keys, certificates, token, kubeconfig."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from datatunerx.server import builtin, kubeconfig, tls
from datatunerx.server.files import write_private
from datatunerx.server.seal import FileKeySeal
from datatunerx.server.tls import TlsFiles
from datatunerx.server.tokens import ADMIN, Tokens
from datatunerx.store import Store, StoreError

MIN_TOKEN = 32
"""Characters of the administrator's token, when someone writes it by hand."""


@dataclass(frozen=True)
class State:
    """An opened home. Close the store when done."""

    home: Path
    store: Store
    tokens: Tokens
    token: str
    """The administrator's, in plain; it also stands in the kubeconfig."""

    @property
    def tls_dir(self) -> Path:
        return self.home / "tls"

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    def tls(self, host: str = "127.0.0.1") -> TlsFiles:
        """The certificate files for a server bound to `host`, made or renewed when needed."""
        return tls.ensure(self.tls_dir, tls.names_for(host))

    def write_kubeconfig(self, port: int, host: str = "127.0.0.1", files: TlsFiles | None = None) -> Path:
        """Write the kubeconfig for a server on this address and port, which shows `files`; its path."""
        name = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        server = f"https://[{name}]:{port}" if ":" in name else f"https://{name}:{port}"
        files = files or self.tls(host)
        ca = files.ca.read_bytes() if files.ca else None
        called = tls.alternative_names(files.certificate)
        kubeconfig.write(
            self.kubeconfig, server=server, ca=ca, token=self.token,
            tls_name=None if name in called else called[0].replace("*", "dtx"),
        )  # fmt: skip
        return self.kubeconfig


def open_state(home: Path, *, history_bytes: int = 32 << 20) -> State:
    """Open or make a home. Locked (a StoreError) when another server has it; says which process."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    seals = {builtin.SECRETS: FileKeySeal(home / "secret.key")}
    store = Store.open(home / "db", seals=seals, history_bytes=history_bytes)
    token = _token(home / "token")
    return State(home, store, Tokens.of({token: ADMIN}), token)


def _token(path: Path) -> str:
    if path.exists() and (found := path.read_text().strip()):
        if len(found) < MIN_TOKEN:
            raise StoreError(f"{path}: shorter than {MIN_TOKEN} characters; delete it and one is made")
        path.chmod(0o600)
        return found
    token = secrets.token_urlsafe(32)
    write_private(path, token.encode() + b"\n")
    return token
