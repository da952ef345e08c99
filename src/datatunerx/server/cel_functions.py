"""What Kubernetes adds to CEL and the engine lacks: list functions, quantity, url and ip.

Values of Kubernetes' own types are maps with one member here: the engine takes no opaque values from Python.
Not there, so that a CRD which uses them is refused by name: find, findAll (they would need RE2, or a pattern
could stop the server), sets, cidr, semver.
"""

import functools
import ipaddress
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from cel_expr_python import cel

T = cel.Type
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")
_UNITS = {
    **dict(zip("num", (Decimal(10) ** power for power in (-9, -6, -3)), strict=True)),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}  # fmt: skip


def extension() -> Any:
    """The functions as an extension of the engine. It must come after that of strings, which it adds to."""
    overloads: dict[str, list[Any]] = {}
    for name, parameters, result, member, code in _functions():
        found = overloads.setdefault(name, [])
        identity = f"{name}_of_{'_'.join(str(each.name()) for each in parameters)}"
        found.append(
            cel.Overload(
                id=identity, return_type=result, parameters=list(parameters), is_member=member, impl=code
            )
        )
    return cel.CelExtension(
        "kubernetes", [cel.FunctionDecl(name, found) for name, found in overloads.items()]
    )


Row = tuple[str, Sequence[Any], Any, bool, Callable[..., Any]]


def _functions() -> Iterator[Row]:
    # Lists
    yield "isSorted", [T.LIST], T.BOOL, True, lambda xs: all(a <= b for a, b in zip(xs, xs[1:], strict=False))
    yield "sum", [T.LIST], T.DYN, True, lambda xs: functools.reduce(operator.add, xs) if xs else 0
    yield "min", [T.LIST], T.DYN, True, min
    yield "max", [T.LIST], T.DYN, True, max
    yield "indexOf", [T.LIST, T.DYN], T.INT, True, lambda xs, x: xs.index(x) if x in xs else -1
    yield "lastIndexOf", [T.LIST, T.DYN], T.INT, True, _last_index
    # Quantities
    yield "quantity", [T.STRING], T.MAP, False, lambda text: _quantity(_number(text))
    yield "isQuantity", [T.STRING], T.BOOL, False, lambda text: _QUANTITY.fullmatch(text) is not None
    yield "isInteger", [T.MAP], T.BOOL, True, lambda q: _whole(_decimal(q))
    yield "asInteger", [T.MAP], T.INT, True, lambda q: int(_decimal(q))
    yield "asApproximateFloat", [T.MAP], T.DOUBLE, True, lambda q: float(_decimal(q))
    yield "sign", [T.MAP], T.INT, True, lambda q: (_decimal(q) > 0) - (_decimal(q) < 0)
    yield "isGreaterThan", [T.MAP, T.MAP], T.BOOL, True, lambda a, b: _decimal(a) > _decimal(b)
    yield "isLessThan", [T.MAP, T.MAP], T.BOOL, True, lambda a, b: _decimal(a) < _decimal(b)
    yield "compareTo", [T.MAP, T.MAP], T.INT, True, _compare
    yield "add", [T.MAP, T.MAP], T.MAP, True, lambda a, b: _quantity(_decimal(a) + _decimal(b))
    yield "add", [T.MAP, T.INT], T.MAP, True, lambda a, b: _quantity(_decimal(a) + b)
    yield "sub", [T.MAP, T.MAP], T.MAP, True, lambda a, b: _quantity(_decimal(a) - _decimal(b))
    yield "sub", [T.MAP, T.INT], T.MAP, True, lambda a, b: _quantity(_decimal(a) - b)
    # URLs
    yield "url", [T.STRING], T.MAP, False, lambda text: {"url": _url(text).geturl()}
    yield "isURL", [T.STRING], T.BOOL, False, functools.partial(_holds, _url)
    yield "getScheme", [T.MAP], T.STRING, True, lambda u: _url(u["url"]).scheme
    yield "getHost", [T.MAP], T.STRING, True, lambda u: _url(u["url"]).netloc.rpartition("@")[2]
    yield "getHostname", [T.MAP], T.STRING, True, lambda u: _url(u["url"]).hostname or ""
    yield "getPort", [T.MAP], T.STRING, True, lambda u: str(_url(u["url"]).port or "")
    yield "getEscapedPath", [T.MAP], T.STRING, True, lambda u: _url(u["url"]).path
    yield "getQuery", [T.MAP], T.MAP, True, lambda u: parse_qs(_url(u["url"]).query, keep_blank_values=True)
    # Addresses
    yield "ip", [T.STRING], T.MAP, False, lambda text: {"ip": str(_ip(text))}
    yield "isIP", [T.STRING], T.BOOL, False, functools.partial(_holds, _ip)
    yield "family", [T.MAP], T.INT, True, lambda address: _ip(address["ip"]).version
    yield "isLoopback", [T.MAP], T.BOOL, True, lambda address: _ip(address["ip"]).is_loopback
    yield "isUnspecified", [T.MAP], T.BOOL, True, lambda address: _ip(address["ip"]).is_unspecified


def _holds(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _last_index(values: list[Any], wanted: Any) -> int:
    return max((place for place, value in enumerate(values) if value == wanted), default=-1)


def _number(text: str) -> Decimal:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity")
    number, exponent, unit = match.groups()
    return Decimal(number + (exponent or "")) * _UNITS.get(unit, Decimal(1))


def _quantity(value: Decimal) -> dict[str, str]:
    # Without trailing zeros, so that equal quantities are equal maps.
    return {"quantity": format(value.normalize(), "f")}


def _decimal(quantity: dict[str, str]) -> Decimal:
    return Decimal(quantity["quantity"])


def _whole(value: Decimal) -> bool:
    return value == value.to_integral_value() and -(2**63) <= value < 2**63


def _compare(first: dict[str, str], second: dict[str, str]) -> int:
    a, b = _decimal(first), _decimal(second)
    return (a > b) - (a < b)


def _url(text: str) -> SplitResult:
    """Absolute, or at least a path from the root."""
    found = urlsplit(text)
    _ = found.port  # ValueError when it is no number
    if not (found.scheme and (found.netloc or found.path)) and not text.startswith("/"):
        raise ValueError(f"{text!r} is not a URL")
    return found


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if "%" in text:
        raise ValueError("an address with a zone")
    return ipaddress.ip_address(text)
