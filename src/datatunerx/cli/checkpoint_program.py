"""`dtx export`, `pull`, `rerun`, `lineage` and `diff`: options only. Bodies import what they need."""

from pathlib import Path
from typing import Annotated

import typer

from datatunerx.cli.options import Kubeconfig, Namespace

app = typer.Typer()
LOOK, CHANGE = "Look", "Change"


@app.command("export", rich_help_panel=CHANGE)
def export_checkpoint(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="See dtx get ckpt.")],
    to: Annotated[str, typer.Option(help="hf (merged folder), adapter, gguf or ollama.")] = "hf",
    type: Annotated[str, typer.Option(help="How weights are stored, as f16 or q8_0.")] = "auto",
    output: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|oci-layout:DIR|oci://...",
            help="A new folder, one in OCI's image layout, or a tag in a registry.",
        ),
    ] = None,
    secret: Annotated[
        str | None, typer.Option(help="Secret with username and password of the registry.")
    ] = None,
    plain_http: Annotated[bool, typer.Option("--plain-http", help="The registry has no TLS.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Ask for it and return.")] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Write a checkpoint in another form, checked against base and adapter before it is there.

    Example: dtx export tickets-r8 --to gguf --type q8_0 --output ./tickets
    """
    from datatunerx.cli import export as command
    from datatunerx.cli.connect import with_api

    asked = command.Request(to, type, output, secret, plain_http)
    with_api(kubeconfig, lambda api: command.export(api, checkpoint, namespace, asked, wait=not no_wait))


@app.command(rich_help_panel=LOOK)
def pull(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="See dtx get ckpt.")],
    export: Annotated[
        str | None, typer.Argument(metavar="EXPORT", help="Its name, as gguf-q8-0. Default: the only one.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder of this machine. Default: ./CKPT-EXPORT.")
    ] = None,
    file: Annotated[str | None, typer.Option(metavar="PATH", help="One file only, as model.gguf.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Fetch an export from the server to this machine. Again after a break, it goes on where it was.

    Example: dtx pull tickets-r8 gguf-q8-0 --to ./tickets
    """
    from datatunerx.cli import pull as command
    from datatunerx.cli.connect import with_api

    with_api(kubeconfig, lambda api: command.pull(api, checkpoint, export, namespace, to=to, file=file))


@app.command(rich_help_panel=CHANGE)
def rerun(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT|FINETUNE", help="A finished training.")],
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Ask for it and return.")] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Train once more from a checkpoint's record, and say whether the same bytes come of it."""
    from datatunerx.cli import export as command
    from datatunerx.cli.connect import with_api

    with_api(kubeconfig, lambda api: command.rerun(api, checkpoint, namespace, wait=not no_wait))


@app.command(rich_help_panel=LOOK)
def lineage(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="See dtx get ckpt.")],
    output: Annotated[str | None, typer.Option("-o", "--output", help="json.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what made a checkpoint: base, data, parameters, code, and the checkpoints it came from."""
    from datatunerx.cli import lineage as command
    from datatunerx.cli.connect import with_api

    with_api(kubeconfig, lambda api: command.lineage(api, checkpoint, namespace, form=output))


@app.command(rich_help_panel=LOOK)
def diff(
    a: Annotated[str, typer.Argument(metavar="CKPT", help="The first checkpoint.")],
    b: Annotated[str, typer.Argument(metavar="CKPT", help="The second.")],
    limit: Annotated[int, typer.Option(min=0, help="Rows shown that only one has.")] = 10,
    output: Annotated[str | None, typer.Option("-o", "--output", help="json.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what changed between two trainings: base, parameters, code, data and its rows."""
    from datatunerx.cli import lineage as command
    from datatunerx.cli.connect import with_api

    with_api(kubeconfig, lambda api: command.diff(api, a, b, namespace, limit=limit, form=output))
