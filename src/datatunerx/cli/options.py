"""Options that many commands have."""

from pathlib import Path
from typing import Annotated

import typer

Namespace = Annotated[str, typer.Option("-n", "--namespace", help="Namespace of the objects.")]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        envvar="DTX_KUBECONFIG", help="Another server than the one of DTX_HOME.", show_default=False
    ),
]
Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="PART=COLUMN", help="A column under another name, as prompt=ask."),
]
