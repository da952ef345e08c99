"""Kinds that are served, made from CRD manifests, and the table that finds them by path."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import orjson

from datatunerx.server import cel, structural
from datatunerx.server.errors import Cause, Json, required, wrong

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
READ_VERBS = ("get", "list", "watch")


@dataclass(frozen=True)
class Column:
    """One column of the table that kubectl prints."""

    name: str
    path: str
    """JSONPath into the object; empty for columns a kind computes itself."""
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True)
class Facade:
    """A kind that shows another one's objects; read-only unless it can also `take` them."""

    source: str
    """The resource whose objects are shown."""
    show: Callable[[Json], Json]
    refusal: str
    """What to say to who would write."""
    take: Callable[[Json], Json] | None = None
    """From an object as it is shown, or a part of one, to what is stored."""
    of: "Kind | None" = None
    """The kind that is stored, when this one can be written."""


@dataclass(frozen=True)
class Scale:
    """Where a kind keeps its number of replicas: member names from the root."""

    spec: tuple[str, ...]
    status: tuple[str, ...]
    selector: tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind as it is served at one version."""

    group: str
    version: str
    name: str
    plural: str
    singular: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    schema: Json = field(default_factory=dict)
    has_status: bool = False
    scale: Scale | None = None
    columns: tuple[Column, ...] = ()
    selectable: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS
    builtin: bool = False
    facade: Facade | None = None
    listed: Callable[[Json], Json] | None = None
    """What lists and watches show of an object, for kinds whose objects hold more than many should see."""
    cells: Callable[[Json], list[object]] | None = None
    """Computes the row of `columns`, for kinds whose columns are more than paths."""

    @property
    def serves(self) -> bool:
        """Whether models can be asked through its objects."""
        return self.resource == "inferenceservices.datatunerx.io"

    @property
    def resource(self) -> str:
        """plural.group, or the plural in the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def stored_as(self) -> str:
        """The resource whose objects are read."""
        return self.facade.source if self.facade else self.resource

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_kind(self) -> str:
        return f"{self.name}.{self.group}" if self.group else self.name

    @cached_property
    def full_schema(self) -> Json:
        """The schema with metadata, as walkers need it."""
        return structural.complete(self.schema)

    @cached_property
    def validator(self) -> structural.Validator:
        return structural.compile_schema(self.full_schema)

    @cached_property
    def rules(self) -> cel.Node | None:
        return cel.compile_rules(self.schema)

    @cached_property
    def keyed_lists(self) -> Json | None:
        """The schema as far as it leads to sets and map lists."""
        return structural.narrowed(self.full_schema, structural.is_keyed_list)

    @cached_property
    def defaults(self) -> Json:
        """The schema as far as it leads to defaults."""
        return structural.narrowed(self.full_schema, structural.has_default) or {}

    @cached_property
    def listed_metadata(self) -> bytes:
        return orjson.dumps({"kind": f"{self.name}List", "apiVersion": self.api_version})[:-1]


class Registry:
    """The kinds served now. `digest` changes when they do."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        self.digest = ""

    def add(self, kind: Kind) -> None:
        self._kinds[kind.group, kind.version, kind.plural] = kind
        self._changed()

    def remove(self, resource: str) -> None:
        """Stop serving every version of a resource."""
        self._kinds = {place: kind for place, kind in self._kinds.items() if kind.resource != resource}
        self._changed()

    def _changed(self) -> None:
        told = repr([(k.group, k.version, k.name, k.plural, hash_of(k.schema)) for k in self])
        self.digest = hashlib.sha256(told.encode()).hexdigest()[:32].upper()

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self._kinds.get((group, version, plural))

    def of_resource(self, resource: str) -> Kind | None:
        return next((kind for kind in self if kind.resource == resource), None)

    def groups(self) -> dict[str, list[str]]:
        """The versions of each group, the core group ("") first."""
        found: dict[str, list[str]] = {}
        for kind in sorted(self, key=lambda kind: kind.group):
            if kind.version not in found.setdefault(kind.group, []):
                found[kind.group].append(kind.version)
        return found


def hash_of(document: Json) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def check_crd(manifest: Json) -> list[Cause]:
    """What is wrong with a CRD beyond its schema: names, versions, rules."""
    spec, name = manifest.get("spec") or {}, manifest["metadata"].get("name", "")
    names = spec.get("names") or {}
    wanted = [("spec.group", spec.get("group")), ("spec.scope", spec.get("scope"))]
    wanted += [("spec.names.plural", names.get("plural")), ("spec.names.kind", names.get("kind"))]
    wanted += [("spec.versions", spec.get("versions"))]
    if missing := [required(path) for path, value in wanted if not value]:
        return missing
    found: list[Cause] = []
    if name != f"{names['plural']}.{spec['group']}":
        found.append(wrong("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if not _NAME.fullmatch(names["plural"]):
        found.append(wrong("spec.names.plural", names["plural"], "must be lowercase letters, digits and -"))
    if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
        found.append(
            wrong("spec.versions", spec["versions"], "must have exactly one version marked as storage")
        )
        return found
    try:
        kind = from_crd(manifest)
        _ = kind.validator, kind.rules
    except cel.RuleError as error:
        found.append(wrong("spec.versions.schema", spec["versions"], str(error)))
    except ValueError as error:
        found.append(wrong("spec.versions.schema.openAPIV3Schema", spec["versions"], str(error)))
    return found


def from_crd(manifest: Json) -> Kind:
    """The kind a CRD describes, at its storage version (there is no conversion between versions)."""
    spec = manifest["spec"]
    names = spec["names"]
    version = next(version for version in spec["versions"] if version.get("storage"))
    subresources = version.get("subresources") or {}
    columns = [
        Column(
            column["name"],
            column["jsonPath"],
            column.get("type", "string"),
            column.get("format", ""),
            column.get("description", ""),
            column.get("priority", 0),
        )
        for column in version.get("additionalPrinterColumns") or [AGE_COLUMN]
    ]
    return Kind(
        group=spec["group"],
        version=version["name"],
        name=names["kind"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        namespaced=spec["scope"] == "Namespaced",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        schema=(version.get("schema") or {}).get("openAPIV3Schema")
        or {"type": "object", structural.PRESERVE: True},
        has_status="status" in subresources,
        scale=_scale(subresources.get("scale")),
        columns=tuple(columns),
        selectable=tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ()),
    )


AGE_COLUMN = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def _scale(found: Json | None) -> Scale | None:
    if not found:
        return None
    selector = found.get("labelSelectorPath")
    return Scale(
        tuple(found["specReplicasPath"].strip(".").split(".")),
        tuple(found["statusReplicasPath"].strip(".").split(".")),
        tuple(selector.strip(".").split(".")) if selector else None,
    )
