"""Commands on models: their reference profiles, and the variants they can be scored with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from scoring import api, reference, variants
from scoring.cli import show
from scoring.cli.run_commands import JsonOption, find
from scoring.job import Precision
from scoring.job_files import find_job
from scoring.models.search_document import search_document
from scoring.models.search_request import Device
from scoring.runs.places import whole_place
from scoring.settings import Settings

models_app = typer.Typer(no_args_is_help=True, help="Models in the registry.")
ModelArgument = Annotated[
    str, typer.Argument(help="models:/NAME@production, models:/NAME/7, or NAME for its production.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the root."""
    app.add_typer(models_app, name="models")


@models_app.command()
def profile(
    model: ModelArgument,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Parquet of training rows: a file, a folder or a glob."),
    ] = None,
    columns: Annotated[
        str, typer.Option(help="The job's [input] columns, comma between, if it has any.")
    ] = "",
    label: Annotated[
        str,
        typer.Option(
            help="Column of the known truth, in rows that the model was not fitted to: variants "
            "and later runs are judged by it."
        ),
    ] = "",
    from_run: Annotated[str | None, typer.Option(help="Take the profile of this run.")] = None,
    sample: Annotated[
        bool, typer.Option(help="Keep up to 5,120 of these rows with the model, to judge variants.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Show a model's reference profile; with --from or --from-run, make it first."""
    context = api.open_context(Settings())
    uri = _uri(model)
    if from_ is not None and from_run is not None:
        raise typer.BadParameter("give --from or --from-run, not both")
    if from_ is not None:
        path = whole_place(from_, "--from")
        found = reference.from_training(
            context, uri, path, _named(columns), label, keep_sample=sample
        )
    elif from_run is not None:
        found = reference.from_run(context, uri, find(from_run).id)
    else:
        found = reference.read(context, uri)
    if json:
        show.document(reference.document(found))
        return
    rows = show.listing("column", "role", "kind", ">rows", ">nulls")
    for column in reference.document(found)["columns"]:
        rows.add_row(
            show.name(column["name"]),
            column["role"],
            column["kind"],
            f"{column['rows']:,}",
            f"{column['nulls']:,}",
        )
    show.table(rows)


@models_app.command("variants")
def list_variants(
    model: ModelArgument,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Parquet rows to judge by; else the reference's sample."),
    ] = None,
    label: Annotated[str, typer.Option(help="Column of the known truth in these rows.")] = "",
    columns: Annotated[
        str, typer.Option(help="The job's [input] columns, comma between, if it has any.")
    ] = "",
    device: Annotated[Device, typer.Option(help="Where the variants are to run.")] = "auto",
    job: Annotated[
        str | None, typer.Option(help="Take limits, columns and device from this job.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Search anew.")] = False,
    json: JsonOption = False,
) -> None:
    """Show every variant of a model on this machine: built, judged against native, timed."""
    settings = Settings()
    asked = find_job(job, settings.jobs) if job else None
    found = variants.of_model(
        api.open_context(settings),
        _uri(model),
        path=from_,
        label=label,
        columns=asked.input.columns if asked and not columns else tuple(_named(columns)),
        device=asked.execution.device if asked else device,
        tensorrt=asked.execution.tensorrt if asked else False,
        again=again,
    )
    limits = asked.precision if asked else Precision()
    shown = search_document(found, limits)
    if json:
        show.document(shown)
        return
    show.table(_variants_table(shown))
    for one in shown["variants"]:
        if not one["admitted"]:
            show.say(f"[bold]{one['variant']}[/]: {escape('; '.join(one['reasons']))}.")
    chosen = shown["chosen"] or "nothing"
    show.say(
        f"{shown['model']} on {shown['device']}: {chosen}, {shown['why']}. Judged on "
        f"{shown['rows']:,} rows ({shown['sample']}); the search took {shown['seconds']:.1f} s."
    )


def _variants_table(shown: Mapping[str, Any]) -> Table:
    rows = show.listing(
        "variant",
        "recipe",
        ">size",
        ">mean error",
        ">max error",
        ">agreement",
        ">batch error",
        ">rows/s",
        ">batch",
        "verdict",
    )
    for one in shown["variants"]:
        rows.add_row(
            f"[bold]{one['variant']} *[/]" if one["chosen"] else one["variant"],
            one["recipe"],
            show.size(one["size_bytes"]),
            show.figure(one["mean_error"]),
            show.figure(one["max_error"]),
            show.share(one["agreement"]),
            show.figure(one["batch_error"]),
            show.count(one["rows_per_second"]),
            show.count(one["batch_rows"]),
            _verdict(one),
        )
    return rows


def _verdict(one: Mapping[str, Any]) -> str:
    if one["chosen"]:
        return "[green]chosen[/]"
    return "[green]admitted[/]" if one["admitted"] else "[red]no[/], see below"


def _uri(model: str) -> str:
    return model if model.startswith("models:/") else f"models:/{model}@production"


def _named(columns: str) -> list[str]:
    return [name.strip() for name in columns.split(",") if name.strip()]
