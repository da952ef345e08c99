"""The side bar, and by it the shortcuts. An entry shows once a page of its name is registered."""

from typing import NamedTuple


class Entry(NamedTuple):
    page: str
    """Its path below the namespace."""
    title: str
    """In English; also in the catalogue."""
    icon: str
    key: str
    """After g."""


MENU: list[tuple[str, list[Entry]]] = [
    ("Build", [
        Entry("datasets", "Datasets", "i-data", "d"),
        Entry("models", "Models", "i-model", "m"),
        Entry("hyperparameters", "Hyperparameters", "i-tune", "h"),
        Entry("plugins", "Plugins", "i-plugin", "p"),
    ]),
    ("Run", [
        Entry("experiments", "Experiments", "i-flask", "e"),
        Entry("jobs", "Jobs", "i-job", "j"),
        Entry("services", "Services", "i-serve", "s"),
        Entry("compare", "Compare", "i-compare", "c"),
    ]),
    ("System", [
        Entry("devices", "Devices & queue", "i-chip", "q"),
        Entry("events", "Events", "i-event", "v"),
        Entry("settings", "Settings", "i-gear", "t"),
    ]),
]  # fmt: skip
