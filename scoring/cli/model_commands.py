"""Commands on models: their reference profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scoring import api, reference
from scoring.cli import show
from scoring.cli.run_commands import JsonOption, find
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
    from_run: Annotated[str | None, typer.Option(help="Take the profile of this run.")] = None,
    json: JsonOption = False,
) -> None:
    """Show a model's reference profile; with --from or --from-run, make it first."""
    context = api.open_context(Settings())
    uri = model if model.startswith("models:/") else f"models:/{model}@production"
    if from_ is not None and from_run is not None:
        raise typer.BadParameter("give --from or --from-run, not both")
    if from_ is not None:
        named = [name.strip() for name in columns.split(",") if name.strip()]
        found = reference.from_training(context, uri, str(Path(from_).absolute()), named)
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
            column["name"],
            column["role"],
            column["kind"],
            f"{column['rows']:,}",
            f"{column['nulls']:,}",
        )
    show.table(rows)
