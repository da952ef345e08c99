"""Events of events.k8s.io: the same objects as the core group's, under newer field names."""

from datatunerx.server.builtin import EVENTS, event_kind
from datatunerx.server.errors import Json
from datatunerx.server.kinds import Facade, Kind

NEWER = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
OLDER = {new: old for old, new in NEWER.items()}


def show(event: Json) -> Json:
    """The core event under the newer names."""
    return {NEWER.get(name, name): value for name, value in event.items()} | {
        "apiVersion": "events.k8s.io/v1"
    }


def take(event: Json) -> Json:
    """The other way round."""
    return {OLDER.get(name, name): value for name, value in event.items()} | {"apiVersion": "v1"}


def newer_kind() -> Kind:
    """Event of events.k8s.io/v1."""
    core = event_kind()
    cells = core.cells
    assert cells is not None
    return Kind(
        "events.k8s.io",
        "v1",
        "Event",
        "events",
        "event",
        short_names=("ev",),
        builtin=True,
        schema=core.schema,
        columns=core.columns,
        cells=lambda event: cells(take(event)),
        selectable=tuple(
            name.replace("involvedObject", "regarding").replace("reportingComponent", "reportingController")
            for name in core.selectable
            if name != "source"
        ),
        facade=Facade(EVENTS, show, "", take=take, of=core),
    )
