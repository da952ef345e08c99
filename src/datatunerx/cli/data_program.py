"""`dtx dataset` and `dtx cache`: options only. Bodies import what they need."""

from pathlib import Path
from typing import Annotated

import typer

from datatunerx.cli.options import Kubeconfig, Map, Namespace

dataset = typer.Typer(help="Data, before and after it is registered.", no_args_is_help=True)
cache = typer.Typer(help="Copies and caches on the server's disk, and their users.", no_args_is_help=True)


@dataset.command("check")
def check_data(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Paths or URIs.")],
    format: Annotated[str, typer.Option(help="How a row is written. Default: recognised.")] = "auto",
    map_: Map = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="json.")] = None,
) -> None:
    """Read files as a Dataset's inspection does, without a server: format, rows kept and dropped, examples.

    Example: dtx dataset check tickets.csv --map completion=reply

    Exit code: 0 if they can be trained on, 1 if not, 2 for a wrong option.
    """
    from datatunerx.cli.check_data import check as command

    raise typer.Exit(int(command(files, format, map_ or (), output)))


@dataset.command("preview")
def preview_data(
    what: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A Dataset, or a file that is none yet.")],
    llm: Annotated[
        str | None, typer.Option(help="For a file: whose tokenizer and template, an LLM or a folder.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="For a file: another template, by name or as Jinja.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page that stands alone instead.")
    ] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="json.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what training would see of a dataset: the report, and rows with what is trained on marked.

    A Dataset's tokens are counted where its spec.llm names a base model.

    Example: dtx dataset preview faq.jsonl --llm smollm2
    """
    from datatunerx.cli.connect import run
    from datatunerx.cli.preview_data import preview as command

    run(command(what, llm, template, html, output, namespace, kubeconfig))


@dataset.command("upload")
def upload_data(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE...]", help="Of the train split; none for rows to score by only."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the Dataset. Default: from the first file.")] = None,
    format: Annotated[str, typer.Option(help="How a row is written. Default: recognised.")] = "auto",
    validate: Annotated[list[Path] | None, typer.Option(help="A file of the validate split.")] = None,
    test: Annotated[list[Path] | None, typer.Option(help="A file of the test split.")] = None,
    map_: Map = None,
    llm: Annotated[str | None, typer.Option(help="An LLM whose tokenizer counts the tokens.")] = None,
    unpack: Annotated[bool, typer.Option("--unpack", help="Take archives for the files in them.")] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Upload files to the server, make a Dataset of them, and show what it holds.

    Broken off, the same command goes on where it stopped.

    Example: dtx dataset upload tickets.jsonl --name tickets

    Exit code: 1 if the data cannot be used.
    """
    from datatunerx.cli import upload
    from datatunerx.cli.connect import with_api

    asked = upload.Request(files or (), validate or (), test or (), name, format, llm, unpack, map_ or ())
    with_api(kubeconfig, lambda api: upload.upload(api, asked, namespace))


@cache.command("list")
def list_cache() -> None:
    """List tokenised data, fetched files, models and uploads with their sizes and users."""
    from datatunerx.cli import cache as command
    from datatunerx.cli.connect import settings, with_api

    with_api(None, lambda api: command.show(api, settings()))


@cache.command("clean")
def clean_cache(
    older_than: Annotated[
        str | None, typer.Option(metavar="7d", help="Only what was not used for so long.")
    ] = None,
    limit: Annotated[
        str | None, typer.Option(metavar="20GB", help="Only until all fits into so much, oldest first.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
) -> None:
    """Remove what no object and no worker uses, and say how many bytes that gives back.

    Example: dtx cache clean --older-than 7d --dry-run
    """
    from datatunerx.cli import cache as command
    from datatunerx.cli.connect import settings, with_api

    with_api(None, lambda api: command.clean(api, settings(), older_than, limit, dry_run=dry_run))
