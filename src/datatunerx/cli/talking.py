"""The commands that ask models: chat, compare, comparisons. Bodies import what they need, as in `program`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datatunerx.cli.options import Kubeconfig, Namespace

if TYPE_CHECKING:
    from datatunerx.cli.documents import Json

ASK = "Ask"

comparisons = typer.Typer(help="Comparisons that were kept.", no_args_is_help=True)

System = Annotated[str | None, typer.Option(help="What the model is told first.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option(min=0, max=2, help="0 always takes the likeliest token.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the sampling: the same seed gives the same answer.")]


def add_to(app: typer.Typer) -> None:
    app.command(rich_help_panel=ASK)(chat)
    app.command(rich_help_panel=ASK)(compare)
    app.add_typer(comparisons, name="comparisons", rich_help_panel=ASK)


def chat(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An LLM, a checkpoint, or a job's name.")],
    system: System = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.7,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same answers.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Talk to a model. /system TEXT, /reset and /exit are commands; Ctrl-C stops an answer, not the talk.

    If no InferenceService serves it, one is made for the talk and deleted after it. Piped input is taken
    line by line, and nothing but the answers is printed.
    """
    import sys

    from datatunerx.cli.chat import chat as command
    from datatunerx.cli.connect import with_api

    settings = _settings(max_tokens, temperature, seed)
    terminal = sys.stdin.isatty()
    with_api(kubeconfig, lambda api: command(api, model, namespace, settings, system, terminal=terminal))


def compare(
    question: Annotated[str | None, typer.Argument(show_default=False)] = None,
    models: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="LLMs, checkpoints, jobs.", show_default=False)
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Its base models and all of its jobs.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Questions: lines of text, or rows of JSONL.", show_default=False)
    ] = None,
    system: System = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    save: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep it on the server.", show_default=False)
    ] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="json: all that is known.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Ask several models the same at once, and show their answers side by side.

    Example: dtx compare --models smollm2,tickets-r8,tickets-r16 "My card was charged twice."
    """
    from datatunerx.cli.answers import Asked, questions_of
    from datatunerx.cli.answers import compare as command
    from datatunerx.cli.connect import with_api

    asked = Asked(
        questions=questions_of(question, file, system),
        models=[name.strip() for name in (models or "").split(",") if name.strip()],
        experiment=experiment, settings=_settings(max_tokens, temperature, seed), save=save, form=output,
    )  # fmt: skip
    with_api(kubeconfig, lambda api: command(api, asked, namespace))


@comparisons.command("list")
def list_comparisons(namespace: Namespace = "default", kubeconfig: Kubeconfig = None) -> None:
    """List what dtx compare --save has kept."""
    from datatunerx.cli.comparisons import list_kept
    from datatunerx.cli.connect import with_api

    with_api(kubeconfig, lambda api: list_kept(api, namespace))


@comparisons.command("export")
def export_comparison(
    name: Annotated[str, typer.Argument(help="Of the comparison.")],
    file: Annotated[Path, typer.Argument(help="JSONL to write; it must not exist.")],
    as_: Annotated[str, typer.Option("--as", metavar="rows|pairs", help="What to make of it.")],
    prefer: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Whose answers are right; default: those voted for.")
    ] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Turn a comparison into evaluation rows, or into pairs of a chosen and a rejected answer.

    Example: dtx comparisons export monday --as pairs --prefer tickets-r16 pairs.jsonl
    """
    from datatunerx.cli.comparisons import export
    from datatunerx.cli.connect import with_api

    with_api(kubeconfig, lambda api: export(api, name, as_, prefer, file, namespace))


def _settings(max_tokens: int, temperature: float, seed: int | None) -> "Json":
    found: Json = {"max_tokens": max_tokens, "temperature": temperature}
    return found | ({"seed": seed} if seed is not None else {})
