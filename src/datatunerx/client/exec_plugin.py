"""A token from the program that a kubeconfig names (its `exec`), as managed clusters want it."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 60
EARLY_SECONDS = 60
"""A token that runs out so soon is fetched anew."""


class ExecPluginError(Exception):
    """The program cannot be run, or gave no token; the message names it and passes on what it said."""


class ExecPlugin:
    """`spec` is the `exec` part of a kubeconfig's user; `folder` that of the kubeconfig."""

    def __init__(self, spec: Mapping[str, Any], folder: Path) -> None:
        command = str(spec["command"])
        # As kubectl reads it: a path is relative to the kubeconfig, a bare name is looked up.
        self._argv = [str(folder / command) if os.sep in command else command, *(spec.get("args") or [])]
        self._environment = {str(one["name"]): str(one["value"]) for one in spec.get("env") or []}
        self._version = str(spec.get("apiVersion", ""))
        self._hint = str(spec.get("installHint") or "")
        self._token = ""
        self._until = 0.0

    def token(self) -> str:
        """The token, fetched again when it is about to run out. Blocks. Raises ExecPluginError."""
        if not self._token or time.time() > self._until - EARLY_SECONDS:
            status = self._run()
            if not status.get("token"):
                raise ExecPluginError(
                    f"{self._argv[0]} gave no token; certificates from it are not supported"
                )
            self._token = str(status["token"])
            until = status.get("expirationTimestamp")
            self._until = datetime.fromisoformat(until).timestamp() if until else float("inf")
        return self._token

    def _run(self) -> dict[str, Any]:
        info = {"apiVersion": self._version, "kind": "ExecCredential", "spec": {"interactive": False}}
        environment = {**os.environ, **self._environment, "KUBERNETES_EXEC_INFO": json.dumps(info)}
        try:
            done = subprocess.run(
                self._argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=TIMEOUT_SECONDS,
            )  # fmt: skip
            if done.returncode:
                raise ExecPluginError(
                    f"{self._argv[0]} ended with {done.returncode}: {done.stderr.strip()[-500:]}"
                )
            status = json.loads(done.stdout)["status"]
        except OSError as error:
            raise ExecPluginError(f"{self._argv[0]}: {error.strerror}. {self._hint}".strip()) from None
        except subprocess.TimeoutExpired:
            raise ExecPluginError(f"{self._argv[0]} did not end within {TIMEOUT_SECONDS} s") from None
        except (ValueError, KeyError, TypeError):
            raise ExecPluginError(f"{self._argv[0]} did not print an ExecCredential with a status") from None
        return dict(status)
