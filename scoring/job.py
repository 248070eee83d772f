"""What to score, with which model, into which place, and how often.

Invariant: a ``Job`` that exists is valid. It is frozen and every default is filled in, so two
jobs that mean the same have the same canonical JSON and the same fingerprint; the ledger keeps
that JSON, and a run never looks at the file again.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from scoring.errors import JobFileInvalid, TemplateUnfilled
from scoring.job_faults import (
    cross_faults,
    toml_fault,
    toml_text,
    validation_faults,
    with_known_braces,
)

__all__ = [
    "SEVERITIES",
    "Action",
    "Drift",
    "Execution",
    "Input",
    "Job",
    "Measure",
    "Output",
    "Precision",
    "Receiver",
    "Schedule",
    "Severity",
    "fill",
]

_INPUT_PLACEHOLDERS = ("date", "slot", "job")
_OUTPUT_PLACEHOLDERS = ("date", "slot", "run_id", "job")
_VISIBLE_TEXT = r"^\P{Cc}*[^\p{Cc}\s]\P{Cc}*$"  # neither blank nor with control characters


def _named_once(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"it names {toml_text(twice)} more than once, name it once")
    return names


_AS_TUPLE = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
_ONCE = AfterValidator(_named_once)
_PLUS_ZERO = AfterValidator(lambda value: value + 0.0)  # -0.0 is 0.0, with the same fingerprint

Action = Literal["log", "retrain", "review", "hold", "fail"]
Severity = Literal["none", "small", "moderate", "severe"]
SEVERITIES: tuple[Severity, ...] = ("none", "small", "moderate", "severe")
"""How far a run has drifted, ascending."""
Measure = Literal["psi", "ks", "wasserstein", "js", "chi2"]

_Columns = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(description='a list of column names, such as ["flight_id"]'),
    _AS_TUPLE,
    _ONCE,
]
_Actions = Annotated[
    tuple[Action, ...],
    Field(description='a list of "log", "retrain", "review", "hold" or "fail", such as ["log"]'),
    _AS_TUPLE,
    _ONCE,
]
_Share = Annotated[float, Field(ge=0, le=1, description="a number from 0 to 1"), _PLUS_ZERO]
_Tolerance = Annotated[float, Field(ge=0, description="a number, 0 or greater"), _PLUS_ZERO]
_Threshold = Annotated[float, Field(gt=0, description="a number greater than 0")]
_Weights = Annotated[
    dict[Annotated[str, Field(min_length=1)], Annotated[float, Field(ge=0), _PLUS_ZERO]],
    Field(description="a table of columns and numbers, 0 or greater, such as { distance = 0.5 }"),
]


class _Table(BaseModel):
    """A table of the job file: frozen, of exact types, without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False
    )

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as invalid:
            faults = validation_faults(type(self), values, invalid)
            raise JobFileInvalid(type(self).__name__, faults) from None

    # To pydantic this is still the plain constructor: it then does not call it for a table
    # within a table, whose faults thus join the others instead of hiding them.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


class Input(_Table):
    """Where the rows come from."""

    path: str = Field(
        pattern=_VISIBLE_TEXT,
        description='a file, folder or glob, such as "data/flights/date={date}"',
    )
    """Local path or s3://, gs://, az://; {date}, {slot} and {job} are filled in."""
    columns: _Columns = ()
    """Columns given to the model; empty: those that the model's signature names."""

    @field_validator("path")
    @classmethod
    def _check_braces(cls, path: str) -> str:
        return with_known_braces(path, _INPUT_PLACEHOLDERS)


class Output(_Table):
    """Where the scores go."""

    path: str = Field(
        pattern=_VISIBLE_TEXT,
        description='a folder, such as "scores/flights-delay/date={date}"',
    )
    """Folder that holds one published run; {date}, {slot}, {run_id} and {job} are filled in.
    Where no placeholder tells the runs apart, each run replaces the last."""
    passthrough: _Columns = ()
    """Input columns written beside the scores, after the key."""

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        if any(character in path for character in "*?["):
            raise ValueError("it must be one folder, so without *, ? and [")
        return with_known_braces(path, _OUTPUT_PLACEHOLDERS)


class Execution(_Table):
    """How a run is carried out."""

    queue: str = Field(
        default="cpu",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description='the name of a queue that a worker serves, such as "cpu" or "gpu"',
    )
    """Celery queue that the chunks are sent to."""
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description='"auto", "cpu" or "cuda"'
    )
    """Where the model must run; auto: CUDA where it works, else the CPU."""
    chunk_rows: int = Field(
        default=0, ge=0, description="a whole number of rows, or 0 to plan chunks from file sizes"
    )
    """Rows aimed at per chunk; 0: planned from sizes."""
    max_attempts: int = Field(default=3, ge=1, le=100, description="a whole number from 1 to 100")
    """Tries at one chunk before it counts as poisonous."""
    error_budget: _Share = 0.001
    """Share of a run's rows that may be quarantined before the run fails."""
    batch_seconds: float = Field(
        default=600.0, gt=0, description="a number of seconds greater than 0, such as 600"
    )
    """How long one call of the model may take before it counts as hanging."""
    tensorrt: bool = Field(default=False, description="true or false")
    """Whether CUDA may mean TensorRT, which takes minutes to prepare a model once."""

    def budget_rows(self, rows: int) -> int:
        """Rows of a run that may be quarantined; the share counts as it is written, in decimal."""
        return int(Decimal(str(self.error_budget)) * rows)


class Precision(_Table):
    """Which variant may score, and how far it may stray from ``native``."""

    variant: Literal["auto", "native", "fp32", "fp16", "int8"] = Field(
        default="auto", description='"auto", "native", "fp32", "fp16" or "int8"'
    )
    """The variant to use; auto: the fastest that passes the gate."""
    max_batch_error: _Tolerance = 0.001
    """Largest difference, in score, of the same row in different batches."""
    max_mean_error: _Tolerance = 0.005
    """Largest mean difference from ``native``, in score, over the gate's sample."""
    min_agreement: _Share = 0.995
    """Share of rows whose decision (argmax, or above 0.5) must be unchanged."""


class Receiver(_Table):
    """Who is told when drift asks for retraining or a review; both ways may be used."""

    webhook: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9_-]*$",
        description='the name of an address in SCORING_WEBHOOKS, such as "mlops"',
    )
    """Name of the address that a signed JSON document is posted to; none: no webhook."""
    task: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9_.]*$",
        description='the name of a Celery task, such as "training.retrain"',
    )
    """Name of the Celery task that is sent the same document; none: no task."""
    task_queue: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description='the name of a queue that workers of your own serve, such as "training"',
    )
    """Celery queue of the task, which workers that know it serve, and ours do not."""


class Drift(_Table):
    """What the data is compared with, and what follows when it has moved."""

    reference: str = Field(
        default="model",
        pattern=r"^[^\p{Cc}{}]*[^\p{Cc}{}\s][^\p{Cc}{}]*$",
        description='"model", "previous", "weekday" or the path of a profile, without placeholders',
    )
    """The reference profile: the model's own, the previous run's, that of the last runs of the
    same weekday, or the one at this path."""
    weekday_runs: int = Field(default=4, ge=1, le=52, description="a whole number from 1 to 52")
    """Runs of the same weekday that make up the reference "weekday", the newest ones."""
    measure: Literal["auto", Measure] = Field(
        default="auto", description='"auto", "psi", "ks", "wasserstein", "js" or "chi2"'
    )
    """The measure that leads; auto: chosen by each column's type and size."""
    small: _Threshold = 0.10
    """PSI, or what else is the measure, from which drift is small."""
    moderate: _Threshold = 0.15
    """The same from which drift is moderate."""
    severe: _Threshold = 0.25
    """The same from which drift is severe."""
    weights: _Weights = {}
    """Importance by column; a column that is not named has 1, one of 0 is only shown."""
    summary: Literal["worst", "mean"] = Field(default="worst", description='"worst" or "mean"')
    """What makes the columns' figures one for the run: the greatest, or the weighted mean."""
    persistence: int = Field(default=1, ge=1, le=30, description="a whole number from 1 to 30")
    """Runs in a row, this one included, that must have drifted so far before anything is done."""
    on_small: _Actions = ("log",)
    """What to do when drift is small."""
    on_moderate: _Actions = ("log",)
    """What to do when drift is moderate."""
    on_severe: _Actions = ("log",)
    """What to do when drift is severe."""
    retrain: Receiver = Field(default=Receiver(), description="a table, [drift.retrain]")
    """Who is told to retrain; without a receiver it is only recorded."""
    review: Receiver = Field(default=Receiver(), description="a table, [drift.review]")
    """Who is told to review; without a receiver it is only recorded."""

    def __hash__(self) -> int:  # pydantic's own would stumble over the table of weights
        return hash(json.dumps(self.model_dump(mode="json"), sort_keys=True))

    @field_validator("moderate", "severe")
    @classmethod
    def _check_order(cls, threshold: float, info: ValidationInfo) -> float:
        lower = "small" if info.field_name == "moderate" else "moderate"
        if lower in info.data and threshold <= info.data[lower]:
            raise ValueError(f"it must be greater than {lower}, which is {info.data[lower]}")
        return threshold


class Schedule(_Table):
    """When runs are due."""

    cron: str = Field(description='five cron fields, such as "30 2 * * *"')
    """Minute, hour, day of month, month and day of week of the slots, in the time zone."""
    timezone: str = Field(
        default="UTC", description='an IANA time zone, such as "America/New_York"'
    )
    """IANA time zone in which the cron fields and the dates are read."""
    catch_up: Literal["none", "latest", "all"] = Field(
        default="latest", description='"none", "latest" or "all"'
    )
    """Which slots missed while beat was down still run."""
    deadline_minutes: int = Field(
        default=180,
        ge=1,
        le=525_600,
        description="a whole number of minutes from 1 to 525600 (a year)",
    )
    """Minutes after its slot by which a run should be published."""
    start: date | None = Field(
        default=None, description="a date without quotes or time, such as 2026-11-01"
    )
    """First calendar date, in the time zone, whose slots are due; none: always was."""
    end: date | None = Field(
        default=None, description="a date without quotes or time, such as 2026-11-30"
    )
    """Last calendar date, in the time zone, whose slots are due; none: for ever."""

    @field_validator("cron")
    @classmethod
    def _check_cron(cls, cron: str) -> str:
        count = len(cron.split())
        if count != 5:
            raise ValueError(
                "it must have five fields (minute, hour, day-of-month, month, day-of-week), "
                f'such as "30 2 * * *", not {count}'
            )
        try:
            CronSim(cron, datetime(2000, 1, 1))
        except CronSimError as bad:
            part = str(bad).removeprefix("Bad ")
            raise ValueError(
                f"its {part} is not valid; accepted are minute 0-59, hour 0-23, "
                "day-of-month 1-31, month 1-12 and day-of-week 0-7 or SUN-SAT"
            ) from None
        return cron

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            zones = {
                name.lower(): zone
                for zone in sorted(available_timezones())
                for name in (zone, zone.rpartition("/")[2])
            }
            close = get_close_matches(timezone.lower(), zones, n=1, cutoff=0.8)
            example = zones[close[0]] if close else "America/New_York"
            raise ValueError(
                f'it must be an IANA time zone, {"perhaps" if close else "such as"} "{example}"'
            ) from None
        return timezone

    @field_validator("end")
    @classmethod
    def _check_end(cls, end: date | None, info: ValidationInfo) -> date | None:
        start = info.data.get("start")
        if end is not None and start is not None and end < start:
            raise ValueError(f"it must be start, which is {start}, or a later date")
        return end


class Job(_Table):
    """A validated job. Raises ``JobFileInvalid`` with every fault when it is built."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$",
        description="1 to 100 of the characters a-z 0-9 . _ -, beginning with a letter or digit",
    )
    """What the job is called in the ledger, in paths and on the command line."""
    model: str = Field(
        pattern=(
            r"^models:/[^/:@?\s][^/:@?]*"
            r"(@[A-Za-z0-9_-]+|/(Staging|Production|Archived|[1-9][0-9]*))$"
        ),
        description=(
            '"models:/name@alias", "models:/name/Production" (or /Staging, /Archived) '
            'or "models:/name/7"'
        ),
    )
    """The registered model; resolved once per run and pinned."""
    on_registry_outage: Literal["fail", "last"] = Field(
        default="fail", description='"fail" or "last"'
    )
    """When the registry does not answer: fail, or use the version that it named last."""
    key: _Columns = ()
    """Columns that identify a row; written first in every part."""
    input: Input = Field(description="a table, [input], with at least path")
    """Where the rows come from."""
    output: Output = Field(description="a table, [output], with at least path")
    """Where the scores go."""
    execution: Execution = Field(default=Execution(), description="a table, [execution]")
    """How a run is carried out."""
    precision: Precision = Field(default=Precision(), description="a table, [precision]")
    """Which variant may score."""
    drift: Drift = Field(default=Drift(), description="a table, [drift]")
    """What drift is measured against, and what follows from it."""
    schedule: Schedule | None = Field(
        default=None, description="a table, [schedule], with at least cron"
    )
    """When runs are due; none: only when asked for."""

    @model_validator(mode="wrap")
    @classmethod
    def _gather_faults(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        faults: list[str] = []
        try:
            job = validate(values)
        except ValidationError as invalid:
            faults = validation_faults(cls, values, invalid)
        faults += cross_faults(values)
        if faults:
            raise JobFileInvalid(cls.__name__, faults)
        return job

    @classmethod
    def load(cls, path: Path) -> Self:
        """The job in a TOML file. Raises ``JobFileInvalid`` with every fault of the file."""
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            fault = "there is no such file; give the path of a job file (TOML)."
        except IsADirectoryError:
            fault = "this is a folder; give the path of a job file (TOML)."
        except OSError as error:
            fault = f"this file cannot be read ({error.strerror}); it must be a readable TOML file."
        except UnicodeDecodeError as error:
            fault = f"byte {error.start + 1} is not UTF-8; save the job file as UTF-8 text."
        else:
            return cls.parse(text, str(path))
        raise JobFileInvalid(str(path), [fault])

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """The job in TOML text; ``source`` says in messages where the text came from."""
        try:
            return cls.model_validate(tomllib.loads(text))
        except JobFileInvalid as invalid:
            raise JobFileInvalid(source, invalid.faults) from None
        except (ValueError, RecursionError) as error:
            raise JobFileInvalid(source, [toml_fault(text, error)]) from None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The job that ``to_json`` wrote. Raises ``JobFileInvalid``."""
        try:
            values = json.loads(text, object_hook=_with_dates)
        except (ValueError, RecursionError) as error:
            raise JobFileInvalid(cls.__name__, [f"this is not JSON: {error}."]) from None
        return cls.model_validate(values)

    def to_json(self) -> str:
        """Canonical JSON: keys sorted, no spaces, defaults filled in, dates as ISO 8601."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def fill(template: str, values: Mapping[str, str | None], key: str) -> str:
    """``template`` with its placeholders filled in; ``key`` names it in a message.

    Raises ``TemplateUnfilled`` for the first placeholder that has no value.
    """

    def value_of(placeholder: re.Match[str]) -> str:
        value = values.get(placeholder[1])
        if value is None:
            raise TemplateUnfilled(key, template, placeholder[1])
        return value

    return re.sub(r"\{([^{}]*)\}", value_of, template)


def _with_dates(table: dict[str, Any]) -> dict[str, Any]:
    """A table of the canonical JSON with the dates that JSON can only hold as text."""
    dates = {key: table[key] for key in ("start", "end") if isinstance(table.get(key), str)}
    return table | {key: date.fromisoformat(text) for key, text in dates.items()}
