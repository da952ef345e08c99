"""`dtx dataset preview`: what training would see of a dataset, with what is trained on marked."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from datatunerx import storage
from datatunerx.cli.check_data import START_SECONDS, inspected
from datatunerx.cli.connect import connected, settings
from datatunerx.cli.errors import BadInput, CommandError, Exit
from datatunerx.cli.text import visible
from datatunerx.client import Api, NotFound
from datatunerx.resources.enums import Split
from datatunerx.resources.material import LLM, AutoSplit, Dataset
from datatunerx.runs import DataFiles, ModelFiles
from datatunerx.runs.preview import counts, pieces, to_html

MAX_REPORT_BYTES = 64 << 20
BAR = 40
"""Width of the longest bar of the histogram, in characters."""
MARKS = ("⟦", "⟧")
"""Around what is trained on, where there are no colours."""


async def preview(
    what: str, llm: str | None, template: str | None, html: Path | None, form: str | None, namespace: str,
    kubeconfig: Path | None,
) -> Exit:  # fmt: skip
    """What `what` names: a file if there is one of that name, else a Dataset."""
    if form not in (None, "json"):
        raise BadInput(f"-o {form}: must be json")
    if Path(what).is_file():
        folder = Path(llm) if llm and Path(llm).is_dir() else None
        if llm and folder is None:
            async with connected(settings(kubeconfig)) as api:
                folder = await model_folder(api, llm, namespace)
        return preview_file(what, folder, template, html, form)
    if llm or template:
        raise BadInput(f"{what}: there is no such file; a Dataset's own spec.llm says whose tokens are shown")
    async with connected(settings(kubeconfig)) as api:
        return await preview_dataset(api, what, namespace, html, form)


def preview_file(
    path: str, folder: Path | None, template: str | None, html: Path | None, form: str | None
) -> Exit:
    """A file that is not registered; with a model's folder as its tokens, else as it was read."""
    splits = {Split.TRAIN: [str(Path(path).absolute())]}
    data = DataFiles(name="preview", splits=splits, auto_split=AutoSplit(validate=0, test=0))
    if template is not None and folder is None:
        raise BadInput("--template: also name a model's folder by --llm; a template writes for a tokenizer")
    model = None
    if folder is not None:
        if not (folder / "tokenizer.json").is_file():
            raise BadInput(
                f"--llm {folder}: there is no tokenizer.json in it; name a model's folder or an LLM"
            )
        model = ModelFiles(name="preview", uri=folder.absolute().as_uri(), digest="", template=template)
    seconds = START_SECONDS + Path(path).stat().st_size / 2**20
    found = inspected(data, seconds, model)
    if found.refused:
        raise CommandError(f"cannot be used: {visible(found.refused)}")
    return show(found.facts, path, html, form)


async def preview_dataset(api: Api, name: str, namespace: str, html: Path | None, form: str | None) -> Exit:
    """A registered Dataset, from the report of its inspection."""
    try:
        dataset = await api.get(Dataset, name, namespace)
    except NotFound:
        raise CommandError(f"{name}: neither a file here nor a Dataset in namespace {namespace}") from None
    uri = dataset.status.report_uri
    if uri is None:
        ready = dataset.status.condition("Ready")
        raise CommandError(
            f"Dataset {name} has no report yet: {ready.message if ready else 'not looked at yet'}"
        )
    try:
        facts: dict[str, Any] = json.loads(storage.read_bytes(uri, limit=MAX_REPORT_BYTES))
    except storage.StorageError as error:
        raise CommandError(f"{uri}: {error}; the report lies where the server's runs do") from None
    return show(facts, name, html, form)


async def model_folder(api: Api, name: str, namespace: str) -> Path:
    """Where the tokenizer of an LLM lies."""
    uri = (await api.get(LLM, name, namespace)).status.local_uri
    if uri is None:
        raise CommandError(f"LLM {name} is not ready; see dtx describe llm {name}")
    return storage.local_path(uri)


def show(facts: dict[str, Any], title: str, html: Path | None, form: str | None) -> Exit:
    if form == "json":
        print(json.dumps(facts, indent=2))
    elif html is not None:
        html.write_text(to_html(facts, title), encoding="utf-8")
        print(f"{html.absolute().as_uri()}")
    else:
        console = Console(highlight=False)
        for line in lines(facts, colours=console.is_terminal and not console.no_color):
            console.print(line, soft_wrap=True)
    return Exit.OK


def lines(facts: dict[str, Any], *, colours: bool) -> list[Text]:
    """The report for a terminal."""
    report = facts["report"]
    made = [Text(f"{name:<11}{visible(value)}") for name, value in counts(report)]
    for reason in report.get("reasons", []):
        places = visible(", ".join(reason.get("where", [])))
        made.append(Text(f"dropped    {reason['count']:,} {reason['reason']}: {places}", style="yellow"))
    made += [
        Text(f"near copy  {visible(place)}", style="yellow")
        for place in report.get("overlap", {}).get("where", [])
    ]
    made += _histogram(report.get("histogram", []))
    for row in facts.get("preview", []):
        made += [Text(), Text(visible(row["row"]), style="bold"), _example(row, colours)]
    return made


def _histogram(bins: Sequence[dict[str, int]]) -> list[Text]:
    most = max((one["rows"] for one in bins), default=1)
    return [
        Text(f"{'≤ ' + format(one['upTo'], ','):>10} {'█' * -(-one['rows'] * BAR // most)} {one['rows']:,}")
        for one in bins
    ]


def _example(row: dict[str, Any], colours: bool) -> Text:
    text = Text()
    if "text" not in row:
        for turn in [*row.get("messages", []), *row.get("rejected", [])[-1:]]:
            text.append(f"{turn['role']:<10} {visible(turn['content'])}\n")
        return text
    for piece, trained in pieces(row):
        said = "\n".join(map(visible, piece.split("\n")))
        if trained and not colours:
            said = said.join(MARKS)
        text.append(said, style="green" if trained else "dim")
    return text
