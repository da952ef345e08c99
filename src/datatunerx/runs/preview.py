"""An inspection's report as a page of HTML that stands alone: no script, nothing fetched, all escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } meter { width: 16rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #8881; padding: .8rem; }
mark { background: #2a83; color: inherit; } .where { color: #888; font-size: 12px; }
"""


def to_html(facts: Mapping[str, Any], title: str) -> str:
    """The page; `facts` is what an inspection writes into its report file."""
    report = facts["report"]
    parts = [
        f"<h1>{said(title)}</h1>",
        _table(counts(report)),
        *_section("Left out", _reasons(report.get("reasons", []))),
        *_section(
            "Length in tokens", _bars([(f"≤ {b['upTo']:,}", b["rows"]) for b in report.get("histogram", [])])
        ),
        *_section("Languages", _bars([(one["name"], one["rows"]) for one in report.get("languages", [])])),
        *_section("Near copies", _lines(report.get("overlap", {}).get("where", []))),
        *_section("Examples", "".join(_example(row) for row in facts.get("preview", []))),
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{said(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def visible(text: object) -> str:
    """Text from a row in which what would not be seen is shown as its code."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in str(text)
    )


def said(text: object) -> str:
    """The same as HTML."""
    return escape(visible(text), quote=True)


def counts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The report's numbers in words, those that say nothing left out."""
    rows = [
        ("format", report.get("format") or "not recognised"),
        ("rows", f"{report['read']:,} read, {report['kept']:,} kept, {report['dropped']:,} dropped"),
        ("splits", ", ".join(f"{count:,} {name}" for name, count in report.get("splits", {}).items())),
    ]
    if report.get("truncated") or report.get("split"):
        cut = f"{report['truncated']:,} cut, {report.get('split', 0):,} split"
        rows.append(("too long", f"{cut}, {report.get('cutTokens', 0):,} tokens lost"))
    if tokens := report.get("tokens"):
        share = tokens["trained"] / max(tokens["total"], 1)
        rows += [
            ("tokens", f"{tokens['total']:,}; a row has {tokens['p50']:,} (p50), {tokens['p95']:,} (p95), "
             f"{tokens['max']:,} at most"),
            ("trained on", f"{tokens['trained']:,} tokens ({share:.0%})"),
            ("turns", f"{tokens['turnsEnded']:,} of {tokens['turns']:,} trained ones end in a trained token"),
        ]  # fmt: skip
    if languages := report.get("languages"):
        total = sum(one["rows"] for one in languages)
        shares = ", ".join(f"{one['name']} {one['rows'] / total:.0%}" for one in languages[:6])
        rows.append(("languages", f"{shares} (of {total:,} rows looked at)"))
    if overlap := report.get("overlap"):
        rows.append(("copies", f"{overlap['duplicates']:,} rows repeat an earlier one"))
        if overlap["heldOut"]:
            leaked = f"of {overlap['heldOut']:,} held-out rows {overlap['leaked']:,} are in train"
            near = f"{overlap['near']:,} nearly (of {overlap['compared']:,} compared)"
            rows.append(("leakage", f"{leaked}, {near}"))
    return rows


def pieces(row: Mapping[str, Any]) -> Iterable[tuple[str, bool]]:
    """The text of a previewed row in pieces, each with whether it carries loss."""
    text, place = row["text"], 0
    for start, end in row["trained"]:
        yield text[place:start], False
        yield text[start:end], True
        place = end
    yield text[place:], False


def _example(row: Mapping[str, Any]) -> str:
    where = f'<p class="where">{said(row["row"])}</p>'
    if "text" in row:
        text = "".join(f"<mark>{said(piece)}</mark>" if on else said(piece) for piece, on in pieces(row))
        return f"{where}<pre>{text}</pre>"
    turns = [*row.get("messages", []), *row.get("rejected", [])[-1:]]
    return where + _table([(turn["role"], turn["content"]) for turn in turns])


def _section(title: str, body: str) -> list[str]:
    return [f"<h2>{title}</h2>", body] if body else []


def _table(rows: Iterable[tuple[object, object]]) -> str:
    return "<table>" + "".join(f"<tr><th>{said(k)}</th><td>{said(v)}</td></tr>" for k, v in rows) + "</table>"


def _reasons(reasons: Sequence[Mapping[str, Any]]) -> str:
    found = [(f"{one['count']:,} {one['reason']}", ", ".join(one.get("where", []))) for one in reasons]
    return _table(found) if found else ""


def _lines(lines: Sequence[str]) -> str:
    return "".join(f'<p class="where">{said(line)}</p>' for line in lines)


def _bars(values: Sequence[tuple[str, int]]) -> str:
    most = max((count for _, count in values), default=0)
    rows = (
        f'<tr><td class="n">{said(name)}</td><td><meter max="{most}" value="{count}"></meter></td>'
        f'<td class="n">{count:,}</td></tr>'
        for name, count in values
    )
    return f"<table>{''.join(rows)}</table>" if most else ""
