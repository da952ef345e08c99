"""`dtx token` and `dtx kubeconfig`: options only. Bodies import what they need."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datatunerx.cli.options import Kubeconfig

if TYPE_CHECKING:
    from datatunerx.cli.token import Grant

app = typer.Typer()
token = typer.Typer(help="Tokens for other users.", no_args_is_help=True)

Role = Annotated[str, typer.Option(help="viewer, editor or admin.")]
Namespaces = Annotated[
    list[str] | None,
    typer.Option("-n", "--namespace", help="Where the role holds. Default: default.", show_default=False),
]
AllNamespaces = Annotated[bool, typer.Option("-A", "--all-namespaces", help="It holds everywhere.")]
Expires = Annotated[str, typer.Option(help="After 90m, 12h, 30d; or never.")]


@app.command(rich_help_panel="Set up")
def kubeconfig(
    path: Annotated[bool, typer.Option("--path", help="Print where it lies instead.")] = False,
    user: Annotated[
        str | None, typer.Option(help="Make a token for this user, and a kubeconfig with it.")
    ] = None,
    role: Role = "viewer",
    namespace: Namespaces = None,
    all_namespaces: AllNamespaces = False,
    expires: Expires = "30d",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write it there, mode 0600.", show_default=False)
    ] = None,
) -> None:
    """Print the kubeconfig of the server of DTX_HOME; with --user, one for somebody else.

    Example: dtx kubeconfig --user ann --role editor --namespace team-a -o ann.kubeconfig
    """
    if user is None:
        from datatunerx.cli.serve import print_kubeconfig

        return print_kubeconfig(path=path)
    from datatunerx.cli.connect import run, settings
    from datatunerx.cli.token import kubeconfig as command

    wanted = _grant(user, role, namespace, all_namespaces, expires)
    run(command(settings(), wanted, output))


@token.command("create")
def token_create(
    user: Annotated[str | None, typer.Option(help="Whom it stands for. Default: your login name.")] = None,
    role: Role = "viewer",
    namespace: Namespaces = None,
    all_namespaces: AllNamespaces = False,
    expires: Expires = "30d",
    name: Annotated[str | None, typer.Option(help="Of the Token object. Default: from the user.")] = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Make a token and print it, this once: the server keeps its hash only.

    Example: dtx token create --user ann --role editor --namespace team-a --expires 12h
    """
    from datatunerx.cli import token as commands
    from datatunerx.cli.connect import with_api

    wanted = _grant(user, role, namespace, all_namespaces, expires)
    with_api(kubeconfig, lambda api: commands.create(api, wanted, name))


@token.command("list")
def token_list(
    output: Annotated[str | None, typer.Option("-o", "--output", help="json, yaml or name.")] = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show who was let in, as what, where and until when."""
    from datatunerx.cli import look
    from datatunerx.cli.connect import with_api

    with_api(kubeconfig, lambda api: look.get(api, ["tokens"], None, form=output, labels="", watch=False))


@token.command("revoke")
def token_revoke(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    user: Annotated[str | None, typer.Option(help="Every token of this user.")] = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let a token in no longer, from now on; watches and logs that it follows end."""
    from datatunerx.cli import token as commands
    from datatunerx.cli.connect import with_api

    with_api(kubeconfig, lambda api: commands.revoke(api, names or (), user))


def _grant(
    user: str | None, role: str, namespaces: list[str] | None, everywhere: bool, expires: str
) -> "Grant":
    from datetime import UTC, datetime

    from datatunerx.cli.token import grant

    return grant(user, role, namespaces or (), expires, everywhere=everywhere, now=datetime.now(UTC))
