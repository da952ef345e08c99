"""From the bytes of a request to an object: JSON, YAML, or the protobuf of kubectl."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson

from datatunerx.server import negotiate, protobuf
from datatunerx.server.errors import Json, bad_request, unsupported_media
from datatunerx.server.http import JSON, Request
from datatunerx.server.kinds import Kind

YAML = "application/yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
MAX_DEPTH = 200


async def read(request: Request, kind: Kind) -> Json:
    """The object in the body, its kind and version checked. 400, 413 or 415."""
    found = negotiate.content_type(request.header("content-type")) or JSON
    if found not in (JSON, YAML, protobuf.MEDIA_TYPE):
        raise unsupported_media(found, (JSON, YAML))
    data = await request.body()
    if found == protobuf.MEDIA_TYPE:
        obj = protobuf.decode(data) if kind.builtin else None
        if obj is None:
            raise unsupported_media(found, (JSON, YAML))
    else:
        obj = parse(data, yaml=found == YAML)
        note_doubled(request, data, yaml=found == YAML)
    return checked(obj, kind)


def note_doubled(request: Request, data: bytes, *, yaml: bool = False) -> None:
    """Remember which fields a body that parses says twice: of those only the last counts.

    Only for who asked how fields are to be judged: it takes as long as half the rest of decoding.
    """
    if request.query.get("fieldValidation") not in ("Strict", "Warn"):
        return
    seen: list[bool] = []

    def pairs(found: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in found]
        seen.append(len(set(names)) < len(names))

    try:
        json.loads(data, object_pairs_hook=pairs)
    except ValueError:
        seen = [yaml]  # then it is YAML: look whether or not there is one
    if any(seen):
        request.doubled = list(_doubled(_node(data), ""))


def _node(data: bytes) -> Any:
    import yaml

    return yaml.compose(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # JSON is YAML, too


def _doubled(node: Any, path: str) -> Iterator[str]:
    if node is None or node.id == "scalar":
        return
    if node.id == "sequence":
        for place, child in enumerate(node.value):
            yield from _doubled(child, f"{path}[{place}]")
        return
    names = Counter(key.value for key, _ in node.value)
    yield from (f"{path}.{name}".lstrip(".") for name, times in names.items() if times > 1)
    for key, child in node.value:
        yield from _doubled(child, f"{path}.{key.value}")


def checked(obj: Any, kind: Kind) -> Json:
    """The object, when it is one of this kind; core kinds may leave out what they are."""
    if not isinstance(obj, dict):
        raise bad_request(f"the body must be one {kind.name} object")
    for name, wanted in (("apiVersion", kind.api_version), ("kind", kind.name)):
        given = obj.get(name) or (wanted if kind.builtin else "")
        if given != wanted:
            raise bad_request(
                f"{name} in the body ({given or 'absent'}) does not match the one of the URL ({wanted})"
            )
    metadata = obj.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise bad_request("metadata: must be an object")
    head = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata or {}}
    return head | {name: value for name, value in obj.items() if name not in head}


def parse(data: bytes, *, yaml: bool = False) -> Any:
    """JSON, or with `yaml` also YAML without anchors; 400 with the reason."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if not yaml:
            raise bad_request(f"the body is not valid JSON: {error}") from None
        value = _yaml(data)
    # Each level costs a bracket; in YAML it need not.
    if (yaml or data.count(b"{") + data.count(b"[") > MAX_DEPTH) and _deeper(value, MAX_DEPTH):
        raise bad_request(f"the body is nested deeper than {MAX_DEPTH} levels")
    return value


def _deeper(value: Any, limit: int) -> bool:
    level = [value]
    while level and limit:
        level = (
            [
                child
                for one in level
                for child in (one.values() if isinstance(one, dict) else one)
                if isinstance(child, dict | list)
            ]
            if isinstance(level[0], dict | list)
            else []
        )
        limit -= 1
    return bool(level)


def _yaml(data: bytes) -> Any:
    import yaml  # only when someone sends it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # An alias may unfold into any size; manifests do without.
        if any(isinstance(event, yaml.events.AliasEvent) for event in yaml.parse(data, Loader=loader)):
            raise bad_request("YAML anchors and aliases are not accepted; write the value out")
        value = yaml.safe_load(data)
        # Through JSON, so that nothing but JSON values comes out; dates become the text they stand for.
        return orjson.loads(orjson.dumps(value))
    except yaml.YAMLError as error:
        raise bad_request(f"the body is not valid YAML: {error}") from None
    except (orjson.JSONEncodeError, orjson.JSONDecodeError) as error:
        raise bad_request(f"the YAML holds what JSON cannot: {error}") from None


def query_options(request: Request) -> Json:
    """DeleteOptions from the query, for clients that send no body."""
    names = ("propagationPolicy", "gracePeriodSeconds", "orphanDependents")
    return {name: request.query[name] for name in names if name in request.query}


async def delete_options(request: Request) -> Json:
    """DeleteOptions from the body and the query; the body wins."""
    found = negotiate.content_type(request.header("content-type")) or JSON
    data = await request.body()
    options = query_options(request)
    if not data.strip():
        return options
    if found not in (JSON, YAML):
        raise unsupported_media(found, (JSON, YAML))
    body = parse(data, yaml=found == YAML)
    if not isinstance(body, dict):
        raise bad_request("the body of a delete must be DeleteOptions")
    if request.flag("dryRun"):
        body.setdefault("dryRun", ["All"])
    return options | body
