"""The command's root: global behaviour, errors and exit codes.

Exit codes: 0 published (or done), 1 failed, 2 usage or job file, 3 held, 4 cancelled. Results go
to standard output, everything else to standard error.
"""

from __future__ import annotations

import logging
import sys

import typer

from scoring import telemetry
from scoring.cli import (
    audit_command,
    clean_command,
    evaluate_command,
    metrics_command,
    model_commands,
    plan_commands,
    replay_command,
    run_commands,
    service_commands,
)
from scoring.cli.show import problem
from scoring.errors import JobError, RunNotFound, RunNotInState, ScoringError, SettingsInvalid
from scoring.settings import Settings

FAILED, USAGE = 1, 2
USAGE_ERRORS = (JobError, RunNotFound, RunNotInState, SettingsInvalid)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Nightscore: nightly batch scoring, exactly once, one pinned model per run.",
)
run_commands.register(app)
plan_commands.register(app)
model_commands.register(app)
evaluate_command.register(app)
replay_command.register(app)
service_commands.register(app)
metrics_command.register(app)
audit_command.register(app)
clean_command.register(app)


@app.callback()
def _configure(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what happens inside."),
) -> None:
    telemetry.configure(Settings().log, logging.INFO if verbose else logging.WARNING)


def main() -> None:
    """Run the command line; turn our errors into a message and an exit code."""
    try:
        app()
    except ScoringError as error:
        problem(error)
        sys.exit(USAGE if isinstance(error, USAGE_ERRORS) else FAILED)
    except KeyboardInterrupt:
        sys.exit(130)
