"""The kinds that are served without a CRD: the few core ones that clients and controllers need."""

import base64
import time
from functools import partial

from datatunerx.server.errors import Json
from datatunerx.server.kinds import Column, Kind
from datatunerx.server.structural import PRESERVE
from datatunerx.server.table import age
from datatunerx.server.tokens import EVERYWHERE, ROLES

SECRETS = "secrets"
NAMESPACES = "namespaces"
CONFIG_MAPS = "configmaps"
EVENTS = "events"
CRDS = "customresourcedefinitions.apiextensions.k8s.io"
REDACTED = "datatunerx.io/redacted"
"""Annotation of a Secret in a list, whose values are left out; such a copy is not taken back."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
TOKENS = "tokens.auth.datatunerx.io"

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


def last_seen(event: Json) -> str:
    """When it last happened, as far as it says: old clients and new ones write it in different places."""
    series = event.get("series")
    again = series.get("lastObservedTime") if isinstance(series, dict) else None
    told = (again, event.get("lastTimestamp"), event.get("eventTime"))
    return next((str(at) for at in told if at), event["metadata"].get("creationTimestamp", ""))


def _event_cells(event: Json) -> list[object]:
    about = event.get("involvedObject") or {}
    seen = last_seen(event)
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


def _without_values(secret: Json) -> Json:
    meta = secret["metadata"]
    annotations = {
        name: text for name, text in (meta.get("annotations") or {}).items() if name != LAST_APPLIED
    }
    meta["annotations"] = annotations | {REDACTED: "true"}
    if "data" in secret:
        secret["data"] = dict.fromkeys(secret["data"], "")
    return secret


def _config_map_cells(config: Json) -> list[object]:
    return [len(config.get("data") or {}) + len(config.get("binaryData") or {}), _age(config)]


def _token_cells(token: Json) -> list[object]:
    spec = token["spec"]
    end = spec.get("expires")
    where = "all" if EVERYWHERE in spec["namespaces"] else ",".join(spec["namespaces"])
    return [spec["user"], spec["role"], where, end or "never", _age(token)]


_TOKEN: Json = {
    "type": "object",
    "required": ["user", "role", "namespaces", "sha256"],
    "properties": {
        "user": {
            "type": "string",
            "minLength": 1,
            "maxLength": 253,
            "pattern": r"^[A-Za-z0-9][-A-Za-z0-9_.@]*$",
        },
        "role": {"type": "string", "enum": list(ROLES)},
        "namespaces": {"type": "array", "minItems": 1, "maxItems": 100, "items": {"type": "string"}},
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "expires": {"type": "string", "format": "date-time"},
    },
    "x-kubernetes-validations": [
        {"rule": "self.user == oldSelf.user", "message": "user is immutable; make another token"},
        {"rule": "self.sha256 == oldSelf.sha256", "message": "sha256 is immutable; make another token"},
    ],
}
"""The pattern of `user` has no colon: names with one are the server's own."""

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


def event_kind() -> Kind:
    return Kind(
        "", "v1", "Event", EVENTS, "event", builtin=True, short_names=("ev",), schema=_ANY,
        selectable=EVENT_FIELDS, cells=_event_cells,
        columns=_columns("Last Seen", "Type", "Reason", "Object", "Message"),
    )  # fmt: skip


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
        event_kind(),
        core(
            "Secret", SECRETS, "secret", schema=secret, selectable=("type",),
            columns=_columns("Type", "Data", "Age"), cells=_secret_cells, listed=_without_values,
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
            "auth.datatunerx.io", "v1", "Token", "tokens", "token", namespaced=False, builtin=True,
            schema={"type": "object", "required": ["spec"], "properties": {"spec": _TOKEN}},
            columns=_columns("User", "Role", "Namespaces", "Expires", "Age"), cells=_token_cells,
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
            _fill_secret(obj)
        case "namespaces":
            obj["spec"] = {"finalizers": ["kubernetes"]}
            obj.setdefault("status", {"phase": "Active"})
            labels = obj["metadata"].setdefault("labels", {})
            labels["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")
        case "customresourcedefinitions.apiextensions.k8s.io":
            _fill_crd(obj)


def _fill_secret(obj: Json) -> None:
    plain, coded = obj.get("stringData") or {}, obj.get("data") or {}
    # What is not text is left for the schema to refuse.
    if (
        isinstance(coded, dict)
        and isinstance(plain, dict)
        and all(isinstance(v, str) for v in plain.values())
    ):
        obj.pop("stringData", None)
        if plain:
            obj["data"] = coded | {n: base64.b64encode(text.encode()).decode() for n, text in plain.items()}
    obj.setdefault("type", "Opaque")


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
