"""What a user may call a kind: plural, singular or short name, of ours and of the core kinds we serve."""

from dataclasses import dataclass

from datatunerx.cli.check import did_you_mean
from datatunerx.cli.errors import BadInput
from datatunerx.resources.kinds import KINDS
from datatunerx.resources.wire import GROUP, VERSION


@dataclass(frozen=True)
class KindName:
    group: str
    """Empty for the core group."""
    version: str
    plural: str
    kind: str
    short: str = ""
    namespaced: bool = True

    @property
    def words(self) -> tuple[str, ...]:
        qualified = f"{self.plural}.{self.group}" if self.group else self.plural
        return (self.plural, self.kind.lower(), *([self.short] if self.short else []), qualified)

    @property
    def qualified(self) -> str:
        """As kubectl prints it before an object's name."""
        return f"{self.kind.lower()}.{self.group}" if self.group else self.kind.lower()


OURS = tuple(KindName(GROUP, VERSION, k.plural, k.name, k.short) for k in KINDS)
CORE = (
    KindName("", "v1", "events", "Event", "ev"),
    KindName("", "v1", "pods", "Pod", "po"),
    KindName("", "v1", "secrets", "Secret"),
    KindName("", "v1", "configmaps", "ConfigMap", "cm"),
    KindName("", "v1", "namespaces", "Namespace", "ns", namespaced=False),
)
TOKEN = KindName("auth.datatunerx.io", "v1", "tokens", "Token", namespaced=False)
CRD = KindName(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", "crd", False
)
_BY_WORD = {word: kind for kind in (*OURS, *CORE, CRD, TOKEN) for word in kind.words}
EVENT, POD = CORE[0], CORE[1]


def kind_named(word: str) -> KindName:
    """The kind; BadInput with the nearest word for an unknown one."""
    found = _BY_WORD.get(word.lower())
    if found is None:
        hint = did_you_mean(word, [kind.plural for kind in (*OURS, *CORE)])
        raise BadInput(f'no kind is called "{word}"{hint}')
    return found


def of_model(kind: str) -> KindName:
    """By the kind's own name, as in a manifest's `kind`."""
    return _BY_WORD[kind.lower()]


def kind_and_name(text: str) -> tuple[KindName, str]:
    """fe/tickets -> (FinetuneExperiment, tickets)."""
    kind, slash, name = text.partition("/")
    if not slash or not name:
        raise BadInput(f'"{text}": write it as KIND/NAME, as in fe/{text.strip("/") or "NAME"}')
    return kind_named(kind), name
