"""`dtx`: its commands and options. Bodies import what they need, so that --help answers at once."""

from pathlib import Path
from typing import Annotated

import typer

from datatunerx.cli import checkpoint_program, data_program, talking, user_program
from datatunerx.cli.options import Kubeconfig, Map, Namespace
from datatunerx.cli.score_program import score

app = typer.Typer(
    name="dtx",
    help="Fine-tune language models: every combination trained, scored beside the base, the best one named.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(user_program.app)
app.add_typer(user_program.token, name="token", rich_help_panel="Set up")
app.add_typer(data_program.dataset, name="dataset", rich_help_panel="Start")
app.add_typer(score, name="score", rich_help_panel="Look")
app.add_typer(checkpoint_program.app)
app.add_typer(data_program.cache, name="cache", rich_help_panel="Set up")
talking.add_to(app)

Files = Annotated[
    list[str] | None, typer.Option("-f", "--filename", help="Manifest, folder of manifests, or - for stdin.")
]
Target = Annotated[str, typer.Argument(metavar="KIND/NAME", help="As fe/tickets, fj/tickets-r8, run/...")]
Words = Annotated[
    list[str], typer.Argument(metavar="KIND [NAME]", help="Plural, singular or short; or `all`.")
]

START, LOOK, CHANGE, HELP = "Start", "Look", "Change", "Set up"


@app.command(rich_help_panel=START)
def tune(
    llm: Annotated[
        str, typer.Option(help="Base model: org/name on the hub, hf://, file://, pkg://, a path.")
    ],
    data: Annotated[str, typer.Option(help="A file, or a folder with train, validate and test files.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=A,B", help="A parameter; several values make a job each."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Measure, as bleu or f1:field=category; the first ranks. Default: exact-match."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the experiment. Default: from what is asked.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest answer when scoring, in tokens.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Score this many rows of the test split.")] = None,
    map_: Map = None,
    sample: Annotated[
        list[str] | None, typer.Option(help="A prompt that every job answers as it trains.")
    ] = None,
    sample_system: Annotated[
        str | None, typer.Option(help="System prompt of the samples.", show_default=False)
    ] = None,
    early_stop: Annotated[
        str | None,
        typer.Option(
            metavar="N[:KEY=VALUE,...]",
            help="End a job after N evaluations without a better value and keep its best; "
            "as 3, or 3:measure=score,minDelta=0.01,limit=16.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the objects; start nothing.")] = False,
    output: Annotated[str, typer.Option("-o", "--output", help="Form of --dry-run: yaml or json.")] = "yaml",
    no_follow: Annotated[bool, typer.Option("--no-follow", help="Start it and return.")] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Train on a file with every combination of settings, and recommend the best. Needs no YAML.

    Example: dtx tune --llm org/name --data faq.jsonl --set lora.rank=8,16 --set learningRate=1e-4,5e-4
    """
    from datatunerx.cli.connect import run, settings
    from datatunerx.cli.experiment import tune as command
    from datatunerx.cli.tune import Request

    asked = Request(
        llm=llm, data=data, settings=set_ or (), metrics=metric or ("exact-match",), name=name,
        max_new_tokens=max_new_tokens, samples=sample or (), limit=limit, features=map_ or (),
        early_stop=early_stop, sample_system=sample_system,
    )  # fmt: skip
    form = output if dry_run else None
    run(command(settings(kubeconfig), asked, namespace, dry_run=form, followed=not no_follow))


@app.command(rich_help_panel=START)
def demo(
    dir: Annotated[Path | None, typer.Option(help="Folder of the example.", show_default=False)] = None,
    namespace: Namespace = "default",
) -> None:
    """Run the support-tickets example: four jobs on a real model, to their verdict."""
    from datatunerx.cli.connect import run, settings
    from datatunerx.cli.experiment import demo as command

    run(command(settings(), dir, namespace))


@app.command(rich_help_panel=START)
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it answers.")] = False,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: DTX_HOST or 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 takes a free one. Default: DTX_PORT or 7443.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate to serve with, and its chain. Default: a self-made one.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    no_controllers: Annotated[
        bool, typer.Option("--no-controllers", help="Serve only; `dtx operator` acts on the objects.")
    ] = False,
    allow_path: Annotated[
        list[Path] | None,
        typer.Option(help="Folder whose files other users may name, too. Default: DTX_ALLOW_PATHS."),
    ] = None,
) -> None:
    """Start the platform: API server and controllers. Runs until Ctrl-C; what trains then goes on.

    Example: dtx up --detach
    """
    from datatunerx.cli.connect import run
    from datatunerx.cli.serve import up as command

    controllers, paths = not no_controllers, allow_path or ()
    run(
        command(
            host, port, detach=detach, controllers=controllers, tls_cert=tls_cert, tls_key=tls_key,
            allow_paths=paths,
        )
    )  # fmt: skip


@app.command(rich_help_panel=START)
def console(kubeconfig: Kubeconfig = None) -> None:
    """Print a link to the web console that logs you in, once, within the hour."""
    from datatunerx.cli.connect import run, settings
    from datatunerx.cli.serve import print_console

    run(print_console(settings(kubeconfig)))


@app.command(rich_help_panel=START)
def operator(
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            envvar="DTX_KUBECONFIG",
            show_default=False,
            help="Default: KUBECONFIG, else the pod's service account, else the server of DTX_HOME.",
        ),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Of the kubeconfig. Default: its current one.")] = None,
    compute: Annotated[
        str, typer.Option(help="Where runs run. `local`, processes of this machine, is the only one yet.")
    ] = "local",
    lease_name: Annotated[
        str, typer.Option(help="Operators that name one Lease have one leader.")
    ] = "datatunerx-operator",
    lease_namespace: Annotated[
        str | None, typer.Option(help="Default: the kubeconfig's, or the pod's.", show_default=False)
    ] = None,
    lease_duration: Annotated[
        float, typer.Option(help="Seconds without renewal after which another may lead.")
    ] = 15.0,
    renew_deadline: Annotated[
        float, typer.Option(help="Seconds without renewal after which the leader stops acting.")
    ] = 10.0,
    retry_period: Annotated[float, typer.Option(help="Seconds between two tries.")] = 2.0,
) -> None:
    """Run the controllers apart from the server, on a cluster with our CRDs or on `dtx up --no-controllers`.

    Runs are started on the machine of the operator (--compute local):
    their model and data files must be readable there, and what they make
    lies under its DTX_HOME. Running them on the cluster's nodes is not built
    yet. Of several operators one leads; operators that share a DTX_HOME take
    over each other's workers.

    Example: dtx operator --context my-cluster
    """
    from datatunerx.cli.connect import run, settings
    from datatunerx.cli.serve import operator as command

    pace = (lease_duration, renew_deadline, retry_period)
    run(command(settings(kubeconfig), context, compute, lease_name, lease_namespace, pace))


@app.command(rich_help_panel=START)
def watch(
    experiment: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Default: the newest.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Follow an experiment to its verdict, or show the verdict of one that has ended.

    Example: dtx watch tickets
    """
    from datatunerx.cli.connect import run, settings
    from datatunerx.cli.experiment import watch as command

    run(command(settings(kubeconfig), experiment, namespace))


@app.command(rich_help_panel=LOOK)
def get(
    words: Words,
    output: Annotated[str | None, typer.Option("-o", "--output", help="json, yaml, wide or name.")] = None,
    selector: Annotated[str, typer.Option("-l", "--selector", help="Labels, as team=a,stage!=old.")] = "",
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on with changes as they come.")] = False,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="All namespaces.")] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """List objects, or show one.

    Example: dtx get fe,fj or dtx get fe tickets -o yaml
    """
    from datatunerx.cli import look
    from datatunerx.cli.connect import with_api

    where = None if everywhere else namespace
    with_api(kubeconfig, lambda api: look.get(api, words, where, form=output, labels=selector, watch=watch))


@app.command(rich_help_panel=LOOK)
def describe(
    words: Words,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    output: Annotated[str | None, typer.Option("-o", "--output", hidden=True)] = None,
) -> None:
    """Show an object with its conditions and events.

    Example: dtx describe fj tickets-r8
    """
    from datatunerx.cli import look
    from datatunerx.cli.connect import with_api
    from datatunerx.cli.errors import BadInput

    if output is not None:  # as kubectl, which has one form of it too, but says no more than "unknown flag"
        raise BadInput(f"-o {output}: a description has one form; use dtx get {' '.join(words)} -o {output}")
    with_api(kubeconfig, lambda api: look.describe(api, words, namespace))


@app.command(rich_help_panel=LOOK)
def logs(
    target: Target,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with lines as they come.")] = False,
    tail: Annotated[int | None, typer.Option(help="The last lines only.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show the log of the run behind a job, an experiment, an LLM, a Dataset, ...

    Example: dtx logs -f fj/tickets-r8
    """
    from datatunerx.cli import look
    from datatunerx.cli.connect import with_api

    with_api(kubeconfig, lambda api: look.logs(api, target, namespace, follow=follow, tail=tail))


@app.command(rich_help_panel=LOOK)
def events(
    target: Annotated[str | None, typer.Argument(metavar="[KIND/NAME]")] = None,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on with events as they come.")] = False,
    output: Annotated[str | None, typer.Option("-o", "--output", help="json or yaml.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what happened, oldest first.

    Example: dtx events fe/tickets
    """
    from datatunerx.cli import look
    from datatunerx.cli.connect import with_api

    with_api(kubeconfig, lambda api: look.events(api, target, namespace, watch=watch, form=output))


@app.command(rich_help_panel=LOOK)
def compare_runs(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Jobs; an experiment is all of its jobs.")
    ],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="json or yaml, for everything.")
    ] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what differs between jobs, and what came of them.

    Example: dtx compare-runs tickets
    """
    from datatunerx.cli import look
    from datatunerx.cli.connect import with_api

    with_api(kubeconfig, lambda api: look.compare_runs(api, names, namespace, form=output))


@app.command(rich_help_panel=CHANGE)
def apply(
    filename: Files = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Have the server check it; keep nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force-conflicts", help="Take over fields others set.")] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Create or change the objects of manifests. Relative file paths start at the manifest's folder.

    Example: dtx apply -f my-experiment/
    """
    from datatunerx.cli import change
    from datatunerx.cli.connect import with_api
    from datatunerx.cli.documents import given

    files = given(filename)
    with_api(kubeconfig, lambda api: change.apply(api, files, namespace, dry_run=dry_run, force=force))


@app.command(rich_help_panel=CHANGE)
def stop(
    target: Target,
    keep: Annotated[bool, typer.Option("--keep", help="End for good, with a last checkpoint.")] = False,
    discard: Annotated[bool, typer.Option("--discard", help="End for good, without one.")] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Suspend an experiment or a job; `dtx resume` goes on. With --keep or --discard: end it for good.

    Example: dtx stop fe/tickets or dtx stop fj/tickets-r8 --keep
    """
    from datatunerx.cli import change
    from datatunerx.cli.connect import with_api

    mode = change.stop_mode(keep=keep, discard=discard)
    with_api(kubeconfig, lambda api: change.stop(api, target, namespace, mode))


@app.command(rich_help_panel=CHANGE)
def resume(target: Target, namespace: Namespace = "default", kubeconfig: Kubeconfig = None) -> None:
    """Go on with what was suspended, from its last whole checkpoint.

    Example: dtx resume fe/tickets
    """
    from datatunerx.cli import change
    from datatunerx.cli.connect import with_api

    with_api(kubeconfig, lambda api: change.resume(api, target, namespace))


@app.command(rich_help_panel=CHANGE)
def retry(
    target: Annotated[
        str, typer.Argument(metavar="NAME", help="Of an experiment or a job; or KIND/NAME, as llm/base.")
    ],
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Try again what failed: trainings from their last whole checkpoint, scores, inspections.

    What succeeded stays as it is. An experiment that had ended goes on, and
    ranks anew at its end. What was stopped or deleted is not tried again.

    Example: dtx retry tickets or dtx retry fj/tickets-r8 or dtx retry llm/base
    """
    from datatunerx.cli.connect import with_api
    from datatunerx.cli.retry import retry as command

    with_api(kubeconfig, lambda api: command(api, target, namespace))


@app.command(rich_help_panel=CHANGE)
def delete(
    words: Annotated[list[str] | None, typer.Argument(metavar="KIND/NAME...")] = None,
    filename: Files = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until they are gone.")] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Delete objects, with what they own. One that others use stays until they are gone, and says so.

    Example: dtx delete fe/tickets ds/old
    """
    from datatunerx.cli import change
    from datatunerx.cli.connect import with_api

    targets = change.delete_targets(words or (), filename or ())
    with_api(kubeconfig, lambda api: change.delete(api, targets, namespace, wait=not no_wait))


@app.command(rich_help_panel=HELP)
def crds(output: Annotated[str, typer.Option("-o", "--output", help="yaml or json.")] = "yaml") -> None:
    """Print the CustomResourceDefinitions, for `kubectl apply --server-side -f -` on a cluster.

    Example: dtx crds | kubectl apply --server-side -f -
    """
    from datatunerx.cli.serve import print_crds

    print_crds(output)


@app.command(rich_help_panel=HELP)
def doctor(
    output: Annotated[str | None, typer.Option("-o", "--output", help="json for scripts.")] = None,
) -> None:
    """Check Python, packages, devices, disk and server; say what is missing and what that turns off."""
    from datatunerx.cli.connect import run, settings
    from datatunerx.cli.doctor import doctor as command

    run(command(settings(), form=output))


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"dtx {version('datatunerx')}")
        raise typer.Exit


@app.callback()
def _dtx(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
