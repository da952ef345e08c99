"""The same on the command line, and in YAML. Pure."""

import json
from typing import Any

from datatunerx.console.kinds import PLURALS, SHORT

Json = dict[str, Any]
_SERVER = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink",
           "ownerReferences", "finalizers", "deletionTimestamp")  # fmt: skip


def place(namespace: str) -> str:
    """The option that names the namespace, where one must."""
    return "" if namespace == "default" else f" -n {namespace}"


def look(kind: str, name: str, namespace: str) -> list[str]:
    """Commands that show the object."""
    at = place(namespace)
    return [
        f"dtx get {SHORT[kind]} {name} -o yaml{at}",
        f"kubectl get {PLURALS[kind].plural} {name} -o yaml{at}",
    ]


def patched(kind: str, name: str, namespace: str, patch: Json) -> str:
    """kubectl's words for a merge patch."""
    text = json.dumps(patch, separators=(",", ":"))
    return f"kubectl patch {PLURALS[kind].plural} {name} --type merge -p '{text}'{place(namespace)}"


def manifest(obj: Json) -> Json:
    """What a user would write for this object: without status and what only the server sets."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _SERVER}
    if metadata.get("namespace") == "default":
        del metadata["namespace"]
    notes = {k: v for k, v in (metadata.pop("annotations", None) or {}).items() if "last-applied" not in k}
    if notes:
        metadata["annotations"] = notes
    head = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}
    return head | {"spec": obj["spec"]} if "spec" in obj else head
