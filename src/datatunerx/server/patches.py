"""Merge patch (RFC 7386), JSON patch (RFC 6902), and the little of strategic merge that core kinds need."""

import copy
from typing import Any

import orjson

from datatunerx.server.errors import ApiError, Json, bad_request

MAX_OPERATIONS = 10_000
MAX_COPIED = 3 << 20
_LIST_KEYS = {"secrets": "name", "imagePullSecrets": "name", "ownerReferences": "uid", "conditions": "type"}


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` after the patch; null deletes, lists are replaced."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = merge_patch(out.get(name), value)
    return out


def strategic_patch(target: Any, patch: Any) -> Any:
    """As a merge patch, with the few lists of core kinds merged by their key."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            out.pop(name, None)
        elif isinstance(value, list) and name in _LIST_KEYS:
            out[name] = _merge_list(out.get(name) or [], value, _LIST_KEYS[name])
        elif isinstance(value, list) and name == "finalizers":
            have = out.get(name) or []
            out[name] = [*have, *(item for item in value if item not in have)]
        else:
            out[name] = strategic_patch(out.get(name), value)
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.split("/", 1)[1]
            out[field] = [item for item in out.get(field) or [] if item not in value]
    return out


def _merge_list(target: list[Any], patch: list[Any], key: str) -> list[Any]:
    out = {item.get(key): item for item in target if isinstance(item, dict)}
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"strategic merge patch: each item needs its key {key!r}")
        if item.get("$patch") == "delete":
            out.pop(item[key], None)
        else:
            out[item[key]] = strategic_patch(out.get(item[key]), item)
    return list(out.values())


def _unprocessable(message: str) -> ApiError:
    return ApiError(422, "Invalid", message)


def json_patch(target: Json, operations: Any) -> Any:
    """`target` after all operations; 422 when one cannot be done, also for a failing test."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch must be a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise ApiError(
            413, "RequestEntityTooLarge", f"a JSON patch may have at most {MAX_OPERATIONS} operations"
        )
    root: list[Any] = [target]  # the document as a member, so that "" is a path like others
    copied = 0
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise bad_request("each operation of a JSON patch needs op and path")
        if operation.get("op") == "copy":
            # A few dozen copies of the whole into itself would fill any memory.
            copied += len(orjson.dumps(_get(root, _source(operation))))
            if copied > MAX_COPIED:
                raise ApiError(
                    413, "RequestEntityTooLarge", f"a JSON patch may copy {MAX_COPIED} bytes at most"
                )
        _operate(root, operation)
    return root[0]


def _operate(root: list[Any], operation: Json) -> None:
    path = operation["path"]
    match operation.get("op"):
        case "test":
            if _get(root, path) != _value(operation):
                raise _unprocessable(f"JSON patch: testing path {path} failed")
        case "add":
            _add(root, path, copy.deepcopy(_value(operation)))
        case "replace":
            _get(root, path)
            _set(root, path, copy.deepcopy(_value(operation)))
        case "remove":
            _remove(root, path)
        case "move":
            value = _get(root, _source(operation))
            if path.startswith(_source(operation) + "/"):
                raise _unprocessable(f"JSON patch: {path} lies inside what is moved")
            _remove(root, _source(operation))
            _add(root, path, value)
        case "copy":
            _add(root, path, copy.deepcopy(_get(root, _source(operation))))
        case other:
            raise bad_request(f"JSON patch: unknown operation {other!r}")


def _value(operation: Json) -> Any:
    if "value" not in operation:
        raise bad_request(f"JSON patch: {operation.get('op')} {operation['path']} needs a value")
    return operation["value"]


def _source(operation: Json) -> str:
    source = operation.get("from")
    if not isinstance(source, str):
        raise bad_request(f"JSON patch: {operation.get('op')} {operation['path']} needs from")
    return source


def _parts(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise bad_request(f"JSON patch: path {path!r} must begin with /")
    return ["0", *(part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:])]


def _index(holder: list[Any], part: str, path: str, *, end: int) -> int:
    if not part.isdigit() or int(part) >= end:
        raise _unprocessable(f"JSON patch: no item {part!r} at {path}")
    return int(part)


def _child(holder: Any, part: str, path: str) -> Any:
    if isinstance(holder, list):
        return holder[_index(holder, part, path, end=len(holder))]
    if isinstance(holder, dict) and part in holder:
        return holder[part]
    raise _unprocessable(f"JSON patch: path {path} does not exist")


def _get(root: list[Any], path: str) -> Any:
    value: Any = root
    for part in _parts(path):
        value = _child(value, part, path)
    return value


def _holder(root: list[Any], path: str) -> tuple[Any, str]:
    *above, last = _parts(path)
    holder: Any = root
    for part in above:
        holder = _child(holder, part, path)
    return holder, last


def _set(root: list[Any], path: str, value: Any) -> None:
    holder, last = _holder(root, path)
    if isinstance(holder, list):
        holder[_index(holder, last, path, end=len(holder))] = value
    else:
        holder[last] = value


def _add(root: list[Any], path: str, value: Any) -> None:
    holder, last = _holder(root, path)
    if holder is root:
        root[0] = value
    elif isinstance(holder, list):
        holder.insert(len(holder) if last == "-" else _index(holder, last, path, end=len(holder) + 1), value)
    elif isinstance(holder, dict):
        holder[last] = value
    else:
        raise _unprocessable(f"JSON patch: nothing can be added at {path}")


def _remove(root: list[Any], path: str) -> None:
    holder, last = _holder(root, path)
    _child(holder, last, path)
    if holder is root:
        raise _unprocessable("JSON patch: the whole object cannot be removed")
    if isinstance(holder, list):
        del holder[int(last)]
    else:
        del holder[last]
