"""`dtx comparisons`: list what was kept, and make rows or pairs of it."""

import json
from pathlib import Path

from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.cli.text import aligned
from datatunerx.client import AlreadyExists, Api, NotFound
from datatunerx.client.comparisons import (
    CONFIG_MAPS,
    FORMS,
    BadComparison,
    Comparison,
    body_of,
    kept,
    read,
    rows,
)


async def keep(api: Api, name: str, comparison: Comparison, namespace: str, *, dry_run: bool = False) -> None:
    """Save it under a name that is free, or see whether it can be. Raises CommandError, also if too large."""
    try:
        body = body_of(name, comparison)
        await api.create_raw(CONFIG_MAPS, body, namespace, dry_run=dry_run)
    except BadComparison as error:
        raise CommandError(str(error)) from None
    except AlreadyExists:
        raise CommandError(f"--save {name}: a ConfigMap of that name exists; choose another name") from None


async def list_kept(api: Api, namespace: str) -> Exit:
    """Exit code 1 if one of them cannot be read; the others are shown."""
    table = [["NAME", "MODELS", "QUESTIONS", "VOTES", "CREATED"]]
    found, bad = await kept(api, namespace)
    for name, one in found:
        votes = sum("vote" in question for question in one.questions)
        table.append([name, ",".join(one.models), str(len(one.questions)), str(votes), one.created])
    print("\n".join(aligned(table)) if found else "No comparisons. Keep one: dtx compare --save NAME ...")
    if bad:
        raise CommandError("\n".join(bad))
    return Exit.OK


async def export(api: Api, name: str, form: str, prefer: str | None, file: Path, namespace: str) -> Exit:
    """Write the rows; a file that is there is not written over."""
    if form not in FORMS:
        raise BadInput(f"--as {form}: must be rows or pairs")
    try:
        comparison = read(await api.get(CONFIG_MAPS, name, namespace))
    except NotFound:
        raise CommandError(f'no comparison is called "{name}"; see dtx comparisons list') from None
    except BadComparison as error:
        raise CommandError(str(error)) from None
    if prefer is not None and prefer not in comparison.models:
        raise BadInput(f"--prefer {prefer}: the comparison has {', '.join(comparison.models)}")
    if prefer is None and not any(question.get("vote") for question in comparison.questions):
        raise BadInput(f"{name} has no votes; name whose answers are right: --prefer MODEL")
    found = rows(comparison, form, prefer or "")
    chosen = prefer or "what was voted for"
    if not found:
        raise CommandError(
            f"{name} gives no {form}: {chosen} answered nothing that the others did not say too"
        )
    try:
        with file.open("x", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    except FileExistsError:
        raise BadInput(f"{file} exists; name another file") from None
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None
    print(f"{file}: {len(found)} {form} of {len(comparison.questions)} questions, {chosen} preferred")
    return Exit.OK
