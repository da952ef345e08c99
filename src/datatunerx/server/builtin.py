"""The kinds that are served without a CRD: the few core ones that clients and controllers need."""

import base64
import time
from functools import partial

from datatunerx.server.errors import Json
from datatunerx.server.kinds import Column, Kind
from datatunerx.server.structural import PRESERVE
from datatunerx.server.table import age

SECRETS = "secrets"
NAMESPACES = "namespaces"
CONFIG_MAPS = "configmaps"
EVENTS = "events"
CRDS = "customresourcedefinitions.apiextensions.k8s.io"

_ANY: Json = {"type": "object", PRESERVE: True}
_STRINGS: Json = {"type": "object", "additionalProperties": {"type": "string"}}
_REFS: Json = {
    "type": "array",
    "items": _ANY | {"properties": {"name": {"type": "string"}}},
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
}
_AGE = Column("Age", ".metadata.creationTimestamp", "date")


def _schema(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def _age(obj: Json) -> str:
    return age(obj["metadata"].get("creationTimestamp", ""), time.time())


def _event_cells(event: Json) -> list[object]:
    about = event.get("involvedObject") or {}
    seen = (
        event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp", "")
    )
    what = f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
    return [
        age(seen, time.time()),
        event.get("type", ""),
        event.get("reason", ""),
        what,
        str(event.get("message", "")).strip(),
    ]


def _secret_cells(secret: Json) -> list[object]:
    return [secret.get("type", ""), len(secret.get("data") or {}), _age(secret)]


def _config_map_cells(config: Json) -> list[object]:
    return [len(config.get("data") or {}) + len(config.get("binaryData") or {}), _age(config)]


EVENT_FIELDS = (
    *(
        f"involvedObject.{name}"
        for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion")
    ),
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)


def core_kinds() -> list[Kind]:
    """Kinds of the core group, leases and CRDs."""

    namespace = _schema(spec=_ANY, status=_ANY)
    config_map = _schema(data=_STRINGS, binaryData=_STRINGS, immutable={"type": "boolean"})
    secret = _schema(
        data=_STRINGS, stringData=_STRINGS, type={"type": "string"}, immutable={"type": "boolean"}
    )
    account = _schema(secrets=_REFS, imagePullSecrets=_REFS, automountServiceAccountToken={"type": "boolean"})
    core = partial(Kind, "", "v1", builtin=True)
    return [
        core(
            "Namespace", NAMESPACES, "namespace", namespaced=False, short_names=("ns",), schema=namespace,
            has_status=True, columns=(Column("Status", ".status.phase"), _AGE),
        ),
        core(
            "Event", EVENTS, "event", short_names=("ev",), schema=_ANY, selectable=EVENT_FIELDS,
            columns=_columns("Last Seen", "Type", "Reason", "Object", "Message"), cells=_event_cells,
        ),
        core(
            "Secret", SECRETS, "secret", schema=secret, selectable=("type",),
            columns=_columns("Type", "Data", "Age"), cells=_secret_cells,
        ),
        core(
            "ConfigMap", CONFIG_MAPS, "configmap", short_names=("cm",), schema=config_map,
            columns=_columns("Data", "Age"), cells=_config_map_cells,
        ),
        core("ServiceAccount", "serviceaccounts", "serviceaccount", short_names=("sa",), schema=account,
             columns=(_AGE,)),
        Kind(
            "coordination.k8s.io", "v1", "Lease", "leases", "lease", builtin=True,
            schema=_schema(spec=_ANY), columns=(Column("Holder", ".spec.holderIdentity"), _AGE),
        ),
        Kind(
            "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions",
            "customresourcedefinition", namespaced=False, short_names=("crd", "crds"), builtin=True,
            schema=_schema(spec=_ANY, status=_ANY), has_status=True,
            columns=(Column("Created At", ".metadata.creationTimestamp"),),
        ),
    ]  # fmt: skip


def _columns(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "") for name in names)


def fill(kind: Kind, obj: Json) -> None:
    """What the server itself sets in a built-in object before it is checked."""
    match kind.resource:
        case "secrets":
            plain = obj.pop("stringData", None) or {}
            if plain:
                coded = {name: base64.b64encode(text.encode()).decode() for name, text in plain.items()}
                obj["data"] = (obj.get("data") or {}) | coded
            obj.setdefault("type", "Opaque")
        case "namespaces":
            obj["spec"] = {"finalizers": ["kubernetes"]}
            obj.setdefault("status", {"phase": "Active"})
            labels = obj["metadata"].setdefault("labels", {})
            labels["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")
        case "customresourcedefinitions.apiextensions.k8s.io":
            _fill_crd(obj)


def _fill_crd(crd: Json) -> None:
    names = crd.get("spec", {}).get("names")
    if not isinstance(names, dict) or not names.get("kind"):
        return
    names.setdefault("listKind", f"{names['kind']}List")
    names.setdefault("singular", names["kind"].lower())
    stamp = crd["metadata"].get("creationTimestamp")
    found = [("NamesAccepted", "NoConflicts"), ("Established", "InitialNamesAccepted")]
    crd["status"] = {
        "acceptedNames": names,
        "storedVersions": [v["name"] for v in crd["spec"].get("versions") or () if v.get("storage")],
        "conditions": [
            {"type": type_, "status": "True", "reason": reason, "message": "", "lastTransitionTime": stamp}
            for type_, reason in found
        ],
    }
