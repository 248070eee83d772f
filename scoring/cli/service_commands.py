"""Commands on the installation: up, doctor, db upgrade."""

from __future__ import annotations

import typer

from scoring import api
from scoring.cli import show
from scoring.cli.checks import checks
from scoring.cli.run_commands import JsonOption
from scoring.cli.stopping import asked_to_stop
from scoring.ledger import Ledger
from scoring.settings import Settings
from scoring.stack import Stack

database_app = typer.Typer(no_args_is_help=True, help="The ledger's database.")


def register(app: typer.Typer) -> None:
    """Add these commands to the root."""
    app.command()(up)
    app.command()(doctor)
    app.add_typer(database_app, name="db")


def up() -> None:
    """Run the embedded services here until Ctrl-C: broker, worker, beat, pages, metrics."""
    settings = Settings()
    api.open_context(settings)
    asked = asked_to_stop()
    show.say("starting broker, worker, beat, Flower and MLflow ...")
    with Stack(settings, pages=True, asked=lambda: asked.times) as stack:
        addresses = stack.ensure()
        if not stack.running:
            show.say(f"a stack already runs in {settings.home} (process {addresses.pid})")
            return
        for name, value in (
            ("broker", addresses.broker),
            ("Flower", addresses.flower),
            ("MLflow", addresses.mlflow),
            ("metrics", addresses.metrics),
            ("ledger", settings.database_url),
            ("registry", settings.tracking_uri),
            ("jobs", settings.jobs),
            ("logs", settings.logs),
        ):
            show.say(f"{name:>9}  {value}")
        show.say("ready; Ctrl-C stops everything")
        while not asked.wait(0.5):
            stack.check()
        show.say("stopping; what is being scored goes on next time. Ctrl-C again hurries")


def doctor(json: JsonOption = False) -> None:
    """Check that everything a run needs is there, and say what is missing."""
    found = checks(Settings())
    if json:
        show.document([check.to_dict() for check in found])
    else:
        rows = show.listing("check", "", "found")
        for check in found:
            mark = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]bad[/]"}
            rows.add_row(check.name, mark[check.verdict], check.found)
        show.table(rows)
    raise typer.Exit(1 if any(check.verdict == "bad" for check in found) else 0)


@database_app.command()
def upgrade() -> None:
    """Bring the ledger's tables to this version."""
    settings = Settings()
    ledger = Ledger.open(settings.database_url, settings.lease_seconds)
    show.say(f"the ledger at {ledger.database} is at revision {ledger.database.upgrade()}")
