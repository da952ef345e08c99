"""What form of answer a client wants, read from its Accept header parameter by parameter."""

from typing import Literal, NamedTuple

Form = Literal["object", "table", "partial"]


class MediaType(NamedTuple):
    """One entry of an Accept or Content-Type header."""

    type: str
    params: dict[str, str]


def parse(header: str) -> list[MediaType]:
    """The entries of the header, best first; entries with q=0 are left out."""
    found: list[tuple[float, int, MediaType]] = []
    for place, part in enumerate(header.split(",")):
        name, *rest = (piece.strip() for piece in part.split(";"))
        params = dict(piece.split("=", 1) for piece in rest if "=" in piece)
        params = {key.strip().lower(): value.strip().strip('"') for key, value in params.items()}
        try:
            quality = float(params.pop("q", "1"))
        except ValueError:
            quality = 1.0
        if name and quality > 0:
            found.append((-quality, place, MediaType(name.lower(), params)))
    return [media for _, _, media in sorted(found, key=lambda entry: entry[:2])]


def form(accept: str) -> Form:
    """Whole objects, a Table, or metadata only. What we cannot serve falls back to whole JSON objects."""
    for media in parse(accept):
        if media.type not in ("application/json", "*/*", "application/*"):
            continue
        wanted = media.params.get("as")
        if media.params.get("g") == "meta.k8s.io" and media.params.get("v") == "v1":
            if wanted == "Table":
                return "table"
            if wanted in ("PartialObjectMetadata", "PartialObjectMetadataList"):
                return "partial"
        if not wanted:
            return "object"
    return "object"


def discovery(accept: str) -> str | None:
    """The version of aggregated discovery asked for (v2 or v2beta1), or None for the legacy documents."""
    for media in parse(accept):
        if media.type != "application/json":
            continue
        if media.params.get("as") != "APIGroupDiscoveryList":
            return None
        if media.params.get("g") == "apidiscovery.k8s.io" and media.params.get("v") in ("v2", "v2beta1"):
            return media.params["v"]
    return None


def content_type(header: str) -> str:
    """The bare type of a body."""
    return header.split(";", 1)[0].strip().lower()
