"""`dtx score`: its commands and options. Bodies import what they need, so that --help answers at once."""

from pathlib import Path
from typing import Annotated

import typer

from datatunerx.cli.options import Kubeconfig, Namespace

score = typer.Typer(help="Scores of one model or service, and two of them compared.", no_args_is_help=True)


@score.command("run")
def score_run(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="llm/NAME or ckpt/NAME.")] = None,
    url: Annotated[
        str | None, typer.Option(help="Ask a service in place of a model, as https://h/v1.")
    ] = None,
    service_model: Annotated[str | None, typer.Option(help="The service's name of its model.")] = None,
    secret: Annotated[str | None, typer.Option(help="NAME or NAME:KEY, the service's key.")] = None,
    data: Annotated[str | None, typer.Option(help="A Dataset.")] = None,
    split: Annotated[str, typer.Option(help="Of the Dataset: train, validate or test.")] = "test",
    question: Annotated[
        list[str] | None,
        typer.Option(metavar="Q=A", help="An own question with its answer; or a .jsonl file."),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="As bleu or f1:field=category; several. Default: exact-match.")
    ] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="A ScoringPlugin; several.")] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="URL#MODEL", help="Who gives the marks of metric judge.")
    ] = None,
    judge_secret: Annotated[str | None, typer.Option(help="NAME or NAME:KEY, the judge's key.")] = None,
    judge_prompt: Annotated[
        Path | None, typer.Option(help="File with {question}, {reference} and {answer} in it.")
    ] = None,
    rank_by: Annotated[
        str | None, typer.Option(help="A metric, or a plugin. Default: the first metric.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many rows of the split.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the Scoring. Default: from what is asked.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Start it and return.")] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Score one model or service, by any number of metrics at once. Stored answers are not made again.

    Example: dtx score run ckpt/faq-r8 --data faq --metric bleu --metric rouge-l
    """
    from datatunerx.cli.connect import with_api
    from datatunerx.cli.score import Request
    from datatunerx.cli.score import score as command

    asked = Request(
        model=model, url=url, service_model=service_model, secret=secret, data=data, split=split,
        questions=question or (), metrics=metric or (), plugins=plugin or (), judge=judge,
        judge_secret=judge_secret, judge_prompt=judge_prompt, rank_by=rank_by, limit=limit,
        max_new_tokens=max_new_tokens, name=name,
    )  # fmt: skip
    with_api(kubeconfig, lambda api: command(api, asked, namespace, wait=not no_wait))


@score.command("compare")
def score_compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A Scoring; a job's is called as the job is.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say whether A beats B, by how much, or that the difference is not distinguishable from noise.

    By the metric that ranks A, row by row: both must have been measured on the same rows.
    """
    from datatunerx.cli.connect import with_api
    from datatunerx.cli.score import compare as command

    with_api(kubeconfig, lambda api: command(api, first, second, namespace))
