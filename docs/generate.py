"""Write what is made from the code: deploy/crds/*.yaml, docs/kinds.md, docs/cli.md.

python docs/generate.py [crds]      write them (or the CRDs only)
python docs/generate.py --check     fail if what is checked in is not what the code says
"""

import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

import typer.main
import yaml

from datatunerx.cli.program import app
from datatunerx.cli.text import as_yaml
from datatunerx.resources.crds import crd_manifests
from datatunerx.resources.kinds import KINDS, Kind

ROOT = Path(__file__).resolve().parent.parent
MADE = "made by `make docs`; change the code instead"


def crds() -> dict[Path, str]:
    """One file per kind, as `kubectl apply --server-side -f deploy/crds` takes them."""
    files: dict[Path, str] = {}
    for manifest in crd_manifests():
        text = f"# {MADE}\n{as_yaml([manifest])}"
        assert yaml.safe_load(text) == manifest, manifest["metadata"]["name"]
        files[ROOT / "deploy" / "crds" / f"{manifest['spec']['names']['plural']}.yaml"] = text
    return files


def kinds_page() -> str:
    """Every kind, every field, from the same schema that the server validates with."""
    lines = [
        "# The kinds", "", f"<!-- {MADE} -->", "",
        "Group `datatunerx.io`, version `v1beta1`, all namespaced. Fields as in YAML; numbers are numbers;",
        "unknown fields are refused by name. `kubectl explain` says the same.", "",
        "| kind | plural | short | what it is |", "|---|---|---|---|",
    ]  # fmt: skip
    for kind in KINDS:
        what = (kind.model.__doc__ or "").strip().splitlines()[0]
        lines.append(f"| [{kind.name}](#{kind.name.lower()}) | `{kind.plural}` | `{kind.short}` | {what} |")
    for kind, manifest in zip(KINDS, crd_manifests(), strict=True):
        lines += ["", *_kind_section(kind, manifest)]
    return "\n".join(lines) + "\n"


def _kind_section(kind: Kind, manifest: dict[str, Any]) -> Iterator[str]:
    schema = manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    yield f"## {kind.name}"
    yield ""
    yield cleandoc(kind.model.__doc__ or "")
    for part in ("spec", "status"):
        yield ""
        yield f"**{part}**"
        yield ""
        yield "| field | type | default | meaning |"
        yield "|---|---|---|---|"
        yield from _rows(schema[part], "")
    for rule in (*kind.rules, *kind.object_rules):
        yield ""
        yield f"Rule: {rule.message}."


def _rows(schema: dict[str, Any], prefix: str) -> Iterator[str]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        inner = field.get("items", field)
        default = "**required**" if name in required else _code(field.get("default"))
        if isinstance(field.get("default"), dict):
            default = ""
        meaning = " ".join((field.get("description") or "").split()).replace("|", "\\|")
        yield f"| `{prefix}{name}` | {_type(field)} | {default} | {meaning} |"
        if "properties" in inner and name != "conditions":
            yield from _rows(inner, f"{prefix}{name}{'[]' if 'items' in field else ''}.")


def _type(field: dict[str, Any]) -> str:
    if "items" in field:
        return f"list of {_type(field['items'])}"
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    low, high = field.get("minimum"), field.get("maximum")
    bounds = ""
    if low is not None:
        bounds += f" {'>' if field.get('exclusiveMinimum') else '>='} {low:g}"
    if high is not None:
        bounds += f"{',' if bounds else ''} {'<' if field.get('exclusiveMaximum') else '<='} {high:g}"
    return f"{field.get('type', 'any')}{bounds}"


def _code(value: Any) -> str:
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def cli_page() -> str:
    """Every command with its options, from the program itself."""
    program = typer.main.get_command(app)
    lines = ["# The commands", "", f"<!-- {MADE} -->", "", f"{program.help}", ""]
    lines += ["Exit codes: 0 succeeded; 1 failed, nothing could be recommended, or the server refused;"]
    lines += ["2 wrong usage or input; 3 no server answers; 130 interrupted. `tune`, `demo` and `watch` end"]
    lines += ["with 0 also where the untouched base is best: that is a verdict, and their words say it.", ""]
    for name, command in _commands(program):
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
        usage = " ".join(["dtx", name, *(p.metavar or p.name.upper() for p in arguments)])
        lines += [f"## dtx {name}", "", "```", f"{usage}{' [OPTIONS]' if options else ''}", "```", ""]
        lines += [cleandoc(command.help or ""), ""]
        rows = [*(_argument(p) for p in arguments), *(_option(p) for p in options)]
        lines += ["| option | meaning |", "|---|---|", *rows, ""] if rows else []
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: Any) -> Iterator[tuple[str, Any]]:
    """Each command with its whole name, those of groups within their group."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", each) for inner, each in _commands(command))
        else:
            yield name, command


def _argument(param: Any) -> str:
    return f"| `{param.metavar or param.name.upper()}` | {(param.help or '').replace('|', '/')} |"


def _option(param: Any) -> str:
    value = "" if param.is_flag else f" {param.metavar or _word(param.type_descriptor.annotation)}"
    many = " (may be given several times)" if param.multiple else ""
    needed = " Required." if param.required else ""
    return f"| `{', '.join(param.opts)}{value}` | {(param.help or '').replace('|', '/')}{many}{needed} |"


def _word(annotation: Any) -> str:
    return "N" if annotation in (int, int | None) else "PATH" if annotation in (Path, Path | None) else "TEXT"


def main(arguments: list[str]) -> int:
    files = crds()
    if "crds" not in arguments:
        files |= {ROOT / "docs" / "kinds.md": kinds_page(), ROOT / "docs" / "cli.md": cli_page()}
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    extra = [path for path in (ROOT / "deploy" / "crds").glob("*.yaml") if path not in files]
    if "--check" in arguments:
        for path in [*stale, *extra]:
            print(f"{path.relative_to(ROOT)} is not what the code says; run make docs", file=sys.stderr)
        return 1 if stale or extra else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
        print(f"wrote {path.relative_to(ROOT)}")
    for path in extra:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
