"""Rows of any format without exact repeats, and with what tells of a person masked: [EMAIL], [PHONE], ...

Only what can be told from its form is found: addresses of mail, phone numbers that can be dialled, cards,
bank accounts and identity numbers whose check digits are right. Names and street addresses are not.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from phonenumbers import Leniency, PhoneNumberMatcher

from datatunerx.data.errors import Problem
from datatunerx.data.parse import ALL_COLUMNS, raw_rows
from datatunerx.plugins import Call, DataPlugin
from datatunerx.plugins.hooks import Row

KINDS = ("email", "phone", "card", "iban", "id")
EMAIL = re.compile(r"[\w.%+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}\.[^\W\d_]{2,63}")
CARD = re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")
SSN = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
RESIDENT = re.compile(
    r"(?<!\d)[1-9]\d{5}(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?!\d)"
)
RESIDENT_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
DIGITS = re.compile(r"\d{2}|\d[ .()-]{1,3}\d")
PARAMETERS = {
    "type": "object",
    "properties": {
        "mask": {
            "type": "array", "items": {"enum": list(KINDS)}, "uniqueItems": True, "default": list(KINDS),
            "description": "What is masked.",
        },
        "regions": {
            "type": "array", "items": {"type": "string", "pattern": "^[A-Z]{2}$"}, "maxItems": 16,
            "default": ["US", "GB", "DE", "CN"],
            "description": "Countries whose phone numbers are found without +country.",
        },
        "deduplicate": {"type": "boolean", "default": True},
    },
    "additionalProperties": False,
}  # fmt: skip


def make(call: Call) -> Iterator[Row]:
    """The rows, masked; one that repeats an earlier one of this split, once masked, is left out."""
    kinds = set(call.parameters.get("mask", KINDS))
    mask = masker(kinds, call.parameters.get("regions", ["US", "GB", "DE", "CN"]))
    once = call.parameters.get("deduplicate", True)
    seen: set[bytes] = set()
    done = 0
    for path in call.files:
        for row in raw_rows(str(path), ALL_COLUMNS):
            place, done = f"{path.name}:{row.line}", done + 1
            call.tell(done, None, "rows")
            if isinstance(row.value, Problem):
                call.leave_out(row.value.reason, place)
                continue
            value = _mapped(dict(row.value), mask)
            if once:
                said = orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS)
                digest = hashlib.blake2b(said, digest_size=16).digest()
                if digest in seen:
                    call.leave_out("repeats an earlier row", place)
                    continue
                seen.add(digest)
            yield value


def masker(kinds: set[str], regions: list[str]) -> Callable[[str], str]:
    """A function that masks these kinds in a text."""

    def mask(text: str) -> str:
        if "email" in kinds and "@" in text:
            text = EMAIL.sub("[EMAIL]", text)
        if not DIGITS.search(text):
            return text
        if "iban" in kinds:
            text = IBAN.sub(lambda found: "[IBAN]" if is_iban(found[0]) else found[0], text)
        if "id" in kinds:
            text = SSN.sub("[ID]", text)
            text = RESIDENT.sub(lambda found: "[ID]" if is_resident(found[0]) else found[0], text)
        if "card" in kinds:
            text = CARD.sub(lambda found: "[CARD]" if is_card(found[0]) else found[0], text)
        return _without_phones(text, regions) if "phone" in kinds else text

    return mask


def is_card(text: str) -> bool:
    """Whether the digits are a payment card's: a known first digit, and Luhn's sum."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6):
        return False
    doubled = (sum(divmod(2 * d, 10)) for d in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether the account number's remainder is right (ISO 13616)."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def is_resident(text: str) -> bool:
    """Whether a Chinese resident's number has the right check character (ISO 7064, MOD 11-2)."""
    total = sum(int(c) * weight for c, weight in zip(text[:17], RESIDENT_WEIGHTS, strict=True))
    return "10X98765432"[total % 11] == text[17].upper()


def _without_phones(text: str, regions: list[str]) -> str:
    spans = set()
    for region in regions or ["ZZ"]:  # nowhere: only with +country
        for found in PhoneNumberMatcher(text, region, leniency=Leniency.VALID):
            spans.add((found.start, found.end))
    end = len(text) + 1
    for start, stop in sorted(spans, reverse=True):
        if stop <= end:  # two countries may find overlapping ones
            text, end = f"{text[:start]}[PHONE]{text[stop:]}", start
    return text


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value


PLUGIN = DataPlugin(
    make, "Rows without repeats, and without mail, phones, cards, accounts and IDs.", PARAMETERS
)
