"""The base of every document we read or write: snake_case here, camelCase in YAML, unknown keys refused."""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "datatunerx.io"
VERSION = "v1beta1"
API_VERSION = f"{GROUP}/{VERSION}"
RETRY = f"{GROUP}/retry"
"""Annotation: another value has an LLM, a Dataset or a plugin inspected again, and a training, a job or a
Scoring that failed tried again."""
CONFINED = f"{GROUP}/confined"
"""Annotation that the server sets: the object names files of its machine and was not written by its owner."""
WANTED = f"{GROUP}/wanted"
"""Annotation of an InferenceService: when it was last asked for while unloaded, in seconds since 1970."""

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of an object in the same namespace."""
Uri = Annotated[str, Field(min_length=1, max_length=4096)]
SHORT_TEXT, LONG_TEXT, CONDITION_TEXT = 256, 65536, 32768
"""Characters."""
ShortText = Annotated[str, Field(max_length=SHORT_TEXT)]
LongText = Annotated[str, Field(max_length=LONG_TEXT)]
CUT = "... (cut)"


def cut(text: str, limit: int = LONG_TEXT) -> str:
    """The text, or as much of it as fits, saying that it was cut."""
    return text if len(text) <= limit else text[: limit - len(CUT)] + CUT


class Wire(BaseModel):
    """A document on the wire; `dump` is what is sent, stored and hashed."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", use_attribute_docstrings=True
    )

    def dump(self) -> dict[str, Any]:
        """Plain JSON values by wire name, without nulls: in a merge patch null means delete."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OwnerReference(Wire):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Wire):
    """What the server knows of every object. Other keys are kept: the server may know more than we do."""

    model_config = ConfigDict(extra="allow")

    name: str = ""
    generate_name: str | None = None
    namespace: str = "default"
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    owner_references: list[OwnerReference] = []


class Condition(Wire):
    """One thing that is true of an object or not, and why, in words a user can act on."""

    list_key: ClassVar[tuple[str, ...]] = ("type",)

    type: ShortText
    status: Annotated[str, Field(pattern="^(True|False|Unknown)$")]
    reason: ShortText = ""
    message: Annotated[str, Field(max_length=CONDITION_TEXT)] = ""
    last_transition_time: ShortText = ""
    observed_generation: int | None = None


class Status(Wire):
    """What every kind's status begins with."""

    observed_generation: int | None = None
    """Generation of the spec that this status speaks of."""
    conditions: Annotated[list[Condition], Field(max_length=32)] = []

    def condition(self, type: str) -> Condition | None:
        return next((c for c in self.conditions if c.type == type), None)

    def is_true(self, type: str) -> bool:
        found = self.condition(type)
        return found is not None and found.status == "True"

    def set_condition(self, type: str, value: bool | None, reason: str, message: str = "") -> None:
        """Set one condition; the transition time moves only when the status does. None is Unknown.

        What is too long is cut: what a worker says of a user's data has no bound.
        """
        status = {True: "True", False: "False", None: "Unknown"}[value]
        old = self.condition(type)
        since = old.last_transition_time if old and old.status == status else now()
        fresh = Condition(
            type=type, status=status, reason=cut(reason, SHORT_TEXT), message=cut(message, CONDITION_TEXT),
            last_transition_time=since, observed_generation=self.observed_generation,
        )  # fmt: skip
        if old is None:
            self.conditions.append(fresh)
        else:
            self.conditions[self.conditions.index(old)] = fresh


class Resource(Wire):
    """An object as the API holds it. Subclasses add `spec` and `status`."""

    kind_name: ClassVar[str]

    api_version: str = API_VERSION
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Self:
        return cls.model_validate(document)

    def owner_reference(self, *, controller: bool = True) -> OwnerReference:
        return OwnerReference(
            api_version=self.api_version,
            kind=self.kind,
            name=self.metadata.name,
            uid=self.metadata.uid,
            controller=controller,
            block_owner_deletion=True,
        )


def now() -> str:
    """The time as Kubernetes writes it: UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
