"""The job file: what is accepted, what each fault says, and what survives a round trip."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.errors import JobFileInvalid, JobNotFound, ScoringError, TemplateUnfilled
from scoring.job import (
    Drift,
    Execution,
    Input,
    Job,
    Output,
    Precision,
    Schedule,
    fill,
)
from scoring.job_files import find_job, load_jobs
from scoring.stack import QUEUES

MINIMAL = """
name = "flights-delay"
model = "models:/flights-delay@production"
input = { path = "data/flights" }
output = { path = "scores/flights" }
"""

DESIGN = """
name  = "flights-delay"
model = "models:/flights-delay@production"
key   = ["flight_id"]

[input]
path = "data/flights/date={date}"
columns = []

[output]
path = "scores/flights-delay/date={date}"
passthrough = ["carrier"]

[execution]
queue = "cpu"
device = "auto"
chunk_rows = 0
max_attempts = 3
error_budget = 0.001

[precision]
variant = "auto"
max_batch_error = 0.001
max_mean_error = 0.005
min_agreement = 0.995

[drift]
reference = "model"
small = 0.10
moderate = 0.15
severe = 0.25
on_small = ["retrain"]
on_moderate = ["review"]
on_severe = ["hold"]

[schedule]
cron = "30 2 * * *"
timezone = "America/New_York"
catch_up = "latest"
deadline_minutes = 180
"""

NAME_TEXT = "1 to 100 of the characters a-z 0-9 . _ -, beginning with a letter or digit"
MODEL_TEXT = (
    '"models:/name@alias", "models:/name/Production" (or /Staging, /Archived) or "models:/name/7"'
)
INPUT_TEXT = 'a file, folder or glob, such as "data/flights/date={date}"'
OUTPUT_TEXT = 'a folder, such as "scores/flights-delay/date={date}"'
CRON_TEXT = (
    "accepted are minute 0-59, hour 0-23, day-of-month 1-31, month 1-12 "
    "and day-of-week 0-7 or SUN-SAT"
)
FIVE_TEXT = (
    "it must have five fields (minute, hour, day-of-month, month, day-of-week), "
    'such as "30 2 * * *"'
)
APART_TEXT = (
    "It must be a folder apart from the input, or a run would replace or read its own files."
)
VALUE_TEXT = 'A value is "text" in quotes, a number, true, false, a date, a [list] or a { table }.'
ACTIONS_TEXT = 'a list of "log", "retrain", "review", "hold" or "fail", such as ["log"]'
COLUMNS_TEXT = 'a list of column names, such as ["flight_id"]'


def with_line(table: str, line: str) -> str:
    """The smallest job file with one line more, or another one, in a table."""
    lines: dict[str, dict[str, str]] = {
        "": {
            "name": 'name = "flights-delay"',
            "model": 'model = "models:/flights-delay@production"',
        },
        "input": {"path": 'path = "data/flights"'},
        "output": {"path": 'path = "scores/flights"'},
    }
    key = line.split("=")[0].strip()
    lines.setdefault(table, {})[key] = line
    return "\n".join(
        part
        for name, rows in lines.items()
        for part in ([f"[{name}]"] if name else []) + list(rows.values())
    )


# table, line, the fault
FAULTS = [
    ("", 'name = ""', f'name is ""; it must be {NAME_TEXT}.'),
    ("", 'name = "Flights Delay"', f'name is "Flights Delay"; it must be {NAME_TEXT}.'),
    ("", 'name = "../other"', f'name is "../other"; it must be {NAME_TEXT}.'),
    ("", 'name = "a\\n"', f'name is "a\\n"; it must be {NAME_TEXT}.'),
    ("", "name = 3", f"name is 3; it must be {NAME_TEXT}."),
    ("", "name = true", f"name is true; it must be {NAME_TEXT}."),
    ("", 'model = "flights-delay"', f'model is "flights-delay"; it must be {MODEL_TEXT}.'),
    ("", 'model = "models:/flights"', f'model is "models:/flights"; it must be {MODEL_TEXT}.'),
    (
        "",
        'model = "models:/flights/latest"',
        f'model is "models:/flights/latest"; it must be {MODEL_TEXT}.',
    ),
    ("", 'model = "models:/flights/0"', f'model is "models:/flights/0"; it must be {MODEL_TEXT}.'),
    ("", 'model = "models:/flights@"', f'model is "models:/flights@"; it must be {MODEL_TEXT}.'),
    ("", 'key = "flight_id"', f'key is "flight_id"; it must be {COLUMNS_TEXT}.'),
    ("", 'key = ["a", 3, true]', f'key is ["a", 3, true]; it must be {COLUMNS_TEXT}.'),
    ("", 'key = [""]', f'key is [""]; it must be {COLUMNS_TEXT}.'),
    (
        "",
        'key = ["a", "b", "a"]',
        'key is ["a", "b", "a"]; it names "a" more than once, name it once.',
    ),
    ("", "queue = 'gpu'", "queue is an unknown key, did you mean `execution.queue`?"),
    ("", 'path = "data"', "path is an unknown key, did you mean `input.path` or `output.path`?"),
    (
        "",
        "colour = 3",
        "colour is an unknown key; accepted here are name, model, on_registry_outage, key, input, "
        "output, execution, precision, drift and schedule.",
    ),
    (
        "",
        'execution = "fast"',
        'execution is "fast"; it must be a table, [execution].',
    ),
    (
        "",
        'schedule = "30 2 * * *"',
        'schedule is "30 2 * * *"; it must be a table, [schedule], with at least cron.',
    ),
    ("executon", "queue = 'gpu'", "executon is an unknown key, did you mean `execution`?"),
    ("input", 'path = ""', f'input.path is ""; it must be {INPUT_TEXT}.'),
    ("input", 'path = "  "', f'input.path is "  "; it must be {INPUT_TEXT}.'),
    ("input", 'path = "data\\u0000"', f'input.path is "data\\u0000"; it must be {INPUT_TEXT}.'),
    (
        "input",
        'path = ["a", "b"]',
        f'input.path is ["a", "b"]; it must be {INPUT_TEXT}.',
    ),
    (
        "input",
        'path = "data/{dat}"',
        'input.path is "data/{dat}"; it holds {dat}, and of braces only {date}, {slot} and {job} '
        "are accepted here.",
    ),
    (
        "input",
        'path = "data/{run_id}"',
        'input.path is "data/{run_id}"; it holds {run_id}, and of braces only {date}, {slot} and '
        "{job} are accepted here.",
    ),
    (
        "input",
        'path = "data/{date"',
        'input.path is "data/{date"; it holds a brace without its partner, and of braces only '
        "{date}, {slot} and {job} are accepted here.",
    ),
    (
        "input",
        'key = ["flight_id"]',
        "input.key is an unknown key, did you mean `key`, above the first [table]?",
    ),
    ("output", 'path = ""', f'output.path is ""; it must be {OUTPUT_TEXT}.'),
    (
        "output",
        'path = "scores/*"',
        'output.path is "scores/*"; it must be one folder, so without *, ? and [.',
    ),
    (
        "output",
        'path = "scores/{}"',
        'output.path is "scores/{}"; it holds {}, and of braces only {date}, {slot}, {run_id} and '
        "{job} are accepted here.",
    ),
    (
        "output",
        'path = "scores/{{date}}"',
        'output.path is "scores/{{date}}"; it holds a brace without its partner, and of braces '
        "only {date}, {slot}, {run_id} and {job} are accepted here.",
    ),
    (
        "output",
        'path = "./data//flights/"',
        'output.path is "./data//flights/"; it is the same place as input.path, which is '
        f'"data/flights". {APART_TEXT}',
    ),
    (
        "output",
        'path = "data/flights/scores"',
        'output.path is "data/flights/scores"; it lies inside input.path, which is '
        f'"data/flights". {APART_TEXT}',
    ),
    (
        "output",
        'path = "data"',
        f'output.path is "data"; it holds input.path, which is "data/flights". {APART_TEXT}',
    ),
    (
        "output",
        'passtrough = ["carrier"]',
        "output.passtrough is an unknown key, did you mean `passthrough`?",
    ),
    ("input.drift", "small = 0.1", "input.drift is an unknown key, did you mean `drift`?"),
    (
        "output",
        "Passthrough = []",
        "output.Passthrough is an unknown key, did you mean `passthrough`?",
    ),
    (
        "output",
        "compression = 3",
        "output.compression is an unknown key; accepted here are path and passthrough.",
    ),
    (
        "execution",
        'queue = "a,b"',
        'execution.queue is "a,b"; it must be the name of a queue that a worker serves, '
        'such as "cpu" or "gpu".',
    ),
    (
        "execution",
        'device = "gpu"',
        'execution.device is "gpu"; it must be "auto", "cpu" or "cuda".',
    ),
    (
        "execution",
        "chunk_rows = -1",
        "execution.chunk_rows is -1; it must be a whole number of rows, or 0 to plan chunks from "
        "file sizes.",
    ),
    (
        "execution",
        'max_attempts = "3"',
        'execution.max_attempts is "3"; it must be a whole number from 1 to 100, without quotes.',
    ),
    (
        "execution",
        "max_attempts = 3.0",
        "execution.max_attempts is 3.0; it must be a whole number from 1 to 100, without a "
        "decimal point.",
    ),
    (
        "execution",
        "max_attempts = true",
        "execution.max_attempts is true; it must be a whole number from 1 to 100.",
    ),
    (
        "execution",
        "max_attempts = 0",
        "execution.max_attempts is 0; it must be a whole number from 1 to 100.",
    ),
    (
        "execution",
        "max_attempts = 101",
        "execution.max_attempts is 101; it must be a whole number from 1 to 100.",
    ),
    (
        "execution",
        "error_budget = 1.5",
        "execution.error_budget is 1.5; it must be a number from 0 to 1.",
    ),
    (
        "execution",
        "error_budget = nan",
        "execution.error_budget is nan; it must be a number from 0 to 1.",
    ),
    (
        "execution",
        "error_budget = true",
        "execution.error_budget is true; it must be a number from 0 to 1.",
    ),
    (
        "precision",
        'variant = "int4"',
        'precision.variant is "int4"; it must be "auto", "native", "fp32", "fp16" or "int8".',
    ),
    (
        "precision",
        "max_mean_error = -0.1",
        "precision.max_mean_error is -0.1; it must be a number, 0 or greater.",
    ),
    (
        "precision",
        "max_batch_error = inf",
        "precision.max_batch_error is inf; it must be a number, 0 or greater.",
    ),
    (
        "precision",
        "min_agreement = 99.5",
        "precision.min_agreement is 99.5; it must be a number from 0 to 1.",
    ),
    (
        "drift",
        'reference = "profiles/{date}"',
        'drift.reference is "profiles/{date}"; it must be "model", "previous", "weekday" or the '
        "path of a profile, without placeholders.",
    ),
    (
        "drift",
        'measure = "kl"',
        'drift.measure is "kl"; it must be "auto", "psi", "ks", "wasserstein", "js" or "chi2".',
    ),
    ("drift", "persistence = 0", "drift.persistence is 0; it must be a whole number from 1 to 30."),
    (
        "drift",
        "weights = { dep_delay = -1 }",
        "drift.weights is { dep_delay = -1 }; it must be a table of columns and numbers, 0 or "
        "greater, such as { distance = 0.5 }.",
    ),
    (
        "drift",
        'weights = ["dep_delay"]',
        'drift.weights is ["dep_delay"]; it must be a table of columns and numbers, 0 or greater, '
        "such as { distance = 0.5 }.",
    ),
    (
        "drift.retrain",
        'webhook = "https://example.com/hook"',
        'drift.retrain.webhook is "https://example.com/hook"; it must be the name of an address in '
        'SCORING_WEBHOOKS, such as "mlops".',
    ),
    (
        "drift.retrain",
        'task_queue = "my queue"',
        'drift.retrain.task_queue is "my queue"; it must be the name of a queue that workers of '
        'your own serve, such as "training".',
    ),
    (
        "drift.review",
        'task = "people.look"',
        "drift.review.task_queue is missing; with a task it must be the queue of the workers that "
        'know "people.look", such as "training".',
    ),
    ("drift", "small = 0", "drift.small is 0; it must be a number greater than 0."),
    (
        "drift",
        "small = 0.2",
        "drift.moderate is 0.15 (the default); it must be greater than small, which is 0.2.",
    ),
    (
        "drift",
        "moderate = 0.25",
        "drift.severe is 0.25 (the default); it must be greater than moderate, which is 0.25.",
    ),
    ("drift", 'on_small = "log"', f'drift.on_small is "log"; it must be {ACTIONS_TEXT}.'),
    (
        "drift",
        'on_severe = ["hold", "page"]',
        f'drift.on_severe is ["hold", "page"]; it must be {ACTIONS_TEXT}.',
    ),
    (
        "drift",
        'on_severe = ["hold", "hold"]',
        'drift.on_severe is ["hold", "hold"]; it names "hold" more than once, name it once.',
    ),
    (
        "schedule",
        'timezone = "UTC"',
        'schedule.cron is missing; it must be five cron fields, such as "30 2 * * *".',
    ),
    (
        "schedule",
        'cron = "30 25 * * *"',
        f'schedule.cron is "30 25 * * *"; its hour is not valid; {CRON_TEXT}.',
    ),
    (
        "schedule",
        'cron = "0 0 30 2 *"',
        f'schedule.cron is "0 0 30 2 *"; its day-of-month is not valid; {CRON_TEXT}.',
    ),
    ("schedule", 'cron = "@daily"', f'schedule.cron is "@daily"; {FIVE_TEXT}, not 1.'),
    ("schedule", 'cron = "0 30 2 * * *"', f'schedule.cron is "0 30 2 * * *"; {FIVE_TEXT}, not 6.'),
]

SCHEDULE_FAULTS = [
    (
        'timezone = "America/NewYork"',
        'schedule.timezone is "America/NewYork"; it must be an IANA time zone, perhaps '
        '"America/New_York".',
    ),
    (
        'timezone = "Z!"',
        'schedule.timezone is "Z!"; it must be an IANA time zone, such as "America/New_York".',
    ),
    (
        'timezone = ""',
        'schedule.timezone is ""; it must be an IANA time zone, such as "America/New_York".',
    ),
    (
        'timezone = "America"',
        'schedule.timezone is "America"; it must be an IANA time zone, such as "America/New_York".',
    ),
    (
        'timezone = "berlin"',
        'schedule.timezone is "berlin"; it must be an IANA time zone, perhaps "Europe/Berlin".',
    ),
    (
        'catch_up = "every"',
        'schedule.catch_up is "every"; it must be "none", "latest" or "all".',
    ),
    (
        "catch_up = false",
        'schedule.catch_up is false; it must be "none", "latest" or "all".',
    ),
    (
        "deadline_minutes = 0",
        "schedule.deadline_minutes is 0; it must be a whole number of minutes from 1 to 525600 "
        "(a year).",
    ),
    (
        'start = "2026-11-01"',
        'schedule.start is "2026-11-01"; it must be a date without quotes or time, such as '
        "2026-11-01.",
    ),
    (
        "start = 2026-11-01T02:30:00",
        "schedule.start is 2026-11-01T02:30:00; it must be a date without quotes or time, such as "
        "2026-11-01.",
    ),
    (
        "start = 2026-11-30\nend = 2026-11-01",
        "schedule.end is 2026-11-01; it must be start, which is 2026-11-30, or a later date.",
    ),
]

SYNTAX_FAULTS = [
    (
        "name = flights",
        "line 1, column 8: `name = flights` is not TOML: invalid value. " + VALUE_TEXT,
    ),
    (
        'model = "m"\nname "flights"',
        "line 2, column 6: `name \"flights\"` is not TOML: expected '=' after a key in a key/value "
        "pair.",
    ),
    (
        'name = "a"\nname = "b"',
        'line 2, column 11: `name = "b"` is not TOML: cannot overwrite a value. The key is there '
        "twice; keep one.",
    ),
    (
        'name = "a\nmodel = "b"',
        "line 1, column 10: `name = \"a` is not TOML: illegal character '\\n'. A quote is opened "
        "on this line and not closed.",
    ),
    (
        'path = "C:\\data"',
        "line 1, column 13: `path = \"C:\\data\"` is not TOML: unescaped '\\' in a string. Write "
        "\\\\ or put the text in 'single quotes'.",
    ),
    ("key = [", "line 1, column 8: `key = [` is not TOML: invalid value. " + VALUE_TEXT),
    (
        "[input]\n[input]",
        "line 2, column 7: `[input]` is not TOML: cannot declare [input] twice.",
    ),
    (
        "[a.b]\nc = 1\n[a.b]",
        "line 3, column 5: `[a.b]` is not TOML: cannot declare [a.b] twice.",
    ),
    (
        "start = 2026-02-30",
        "line 1, column 9: `start = 2026-02-30` is not TOML: invalid date or datetime.",
    ),
]


def faults(text: str) -> list[str]:
    with pytest.raises(JobFileInvalid) as caught:
        Job.parse(text, "flights.toml")
    assert str(caught.value).startswith("flights.toml: ")
    return list(caught.value.faults)


@pytest.mark.parametrize(("table", "line", "fault"), FAULTS, ids=lambda value: str(value)[:50])
def test_a_fault_names_the_key_what_was_found_and_what_is_accepted(table, line, fault):
    assert faults(with_line(table, line)) == [fault]


@pytest.mark.parametrize(("lines", "fault"), SCHEDULE_FAULTS, ids=lambda value: value[:50])
def test_a_fault_of_the_schedule_says_what_is_accepted(lines, fault):
    assert faults(f'{MINIMAL}\n[schedule]\ncron = "30 2 * * *"\n{lines}') == [fault]


@pytest.mark.parametrize(("text", "fault"), SYNTAX_FAULTS, ids=lambda value: value[:50])
def test_text_that_is_not_toml_is_shown_with_line_and_column(text, fault):
    assert faults(text) == [fault]


def test_all_faults_are_told_at_once_in_every_table_and_across_tables():
    text = """
    name = "Flights"
    model = "flights"
    key = ["id"]
    colour = 1
    [input]
    path = "data/{when}"
    [output]
    path = "data"
    passthrough = ["carrier", "id"]
    [execution]
    max_attempts = "3"
    error_budget = 2
    [drift]
    small = 0.5
    [schedule]
    cron = "daily"
    timezone = "Mars"
    """
    assert [fault.split(" is ")[0] for fault in faults(text)] == [
        "name",
        "model",
        "input.path",
        "execution.max_attempts",
        "execution.error_budget",
        "drift.moderate",
        "schedule.cron",
        "schedule.timezone",
        "colour",
        "output.passthrough",
        "output.path",
    ]


def test_an_empty_file_is_told_each_key_that_must_be_there():
    assert faults("") == [
        f"name is missing; it must be {NAME_TEXT}.",
        f"model is missing; it must be {MODEL_TEXT}.",
        "input is missing; it must be a table, [input], with at least path.",
        "output is missing; it must be a table, [output], with at least path.",
    ]


def test_a_misspelt_required_key_is_one_fault_and_not_also_a_missing_one():
    assert faults(MINIMAL.replace("name =", "nmae =")) == [
        "nmae is an unknown key, did you mean `name`?"
    ]


def test_a_column_in_both_key_and_passthrough_is_a_fault():
    text = with_line("", 'key = ["flight_id", "day"]').replace(
        "[output]", '[output]\npassthrough = ["day", "carrier"]'
    )
    assert faults(text) == [
        'output.passthrough is ["day", "carrier"]; it must not repeat "day", because the columns '
        "of key are passed through already."
    ]


def told_by(queue: str, execution: str = "cpu") -> Job:
    receiver = {"task": "training.retrain", "task_queue": queue}
    return a_job(drift={"retrain": receiver}, execution={"queue": execution})


@pytest.mark.parametrize("queue", [*QUEUES, "nightly"])
def test_a_task_of_somebody_else_on_a_queue_of_our_own_workers_is_a_fault(queue):
    with pytest.raises(JobFileInvalid) as caught:
        told_by(queue, execution="nightly")

    assert caught.value.faults == (
        f'drift.retrain.task_queue is "{queue}"; our own workers serve that queue and would drop '
        '"training.retrain", so it must be a queue of the workers that know the task, such as '
        '"training".',
    )
    assert told_by("training").drift.retrain.task_queue == "training"


def test_a_job_of_before_with_a_queue_and_no_task_is_still_read():
    stored = json.loads(Job.parse(MINIMAL, "flights.toml").to_json())
    stored["drift"]["review"]["task_queue"] = "celery"

    job = Job.from_json(json.dumps(stored))

    assert (job.drift.review.task, job.drift.review.task_queue) == ("", "celery")


def test_a_long_value_is_shortened_in_its_fault():
    (fault,) = faults(with_line("", f"key = {['c' * 40] * 40}"))
    assert len(fault) < 250
    assert "…" in fault


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("data/*.parquet", "data"),
        ("data/*", "data/scores"),
        ("data/**", "data/a/b"),
        ("data/**/*.parquet", "data/scores"),
        ("data/date=*", "data/date={date}"),
        (".", "scores"),
        ("/data/../data/in", "/data/in/scores"),
        ("file:///data", "/data/scores"),
        ("s3://bucket/data", "s3://bucket/data/scores/"),
        ("data/part.parquet", "data"),
    ],
)
def test_an_output_that_meets_the_input_is_refused(source, target):
    with pytest.raises(JobFileInvalid, match="a folder apart from the input"):
        a_job(input={"path": source}, output={"path": target})


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("data/*.parquet", "data/scores"),
        ("data/flights", "data/flights-scores"),
        ("data/**/raw.parquet", "data/scores"),
        ("data/date={date}", "data/scores"),
        ("/data", "data/scores"),
        ("s3://bucket/data", "s3://other/data"),
        ("s3://bucket/data", "bucket/data"),
        (".", "s3://bucket/scores"),
        ("data/in", "scores"),
    ],
)
def test_an_output_apart_from_the_input_is_accepted(source, target):
    assert a_job(input={"path": source}, output={"path": target}).output.path == target


@pytest.mark.parametrize(
    "model",
    [
        "models:/flights-delay@production",
        "models:/flights delay.v2@champion_1",
        "models:/flights-delay/Production",
        "models:/flights-delay/Staging",
        "models:/flights-delay/7",
    ],
)
def test_a_model_is_named_by_alias_stage_or_version(model):
    assert a_job(model=model).model == model


def test_a_scheduled_job_may_replace_its_output_every_night():
    job = a_job(output={"path": "scores/latest"}, schedule={"cron": "0 2 * * *"})
    assert job.schedule is not None


def a_job(**fields: object) -> Job:
    given_fields: dict[str, object] = {
        "name": "flights-delay",
        "model": "models:/flights-delay@production",
        "input": {"path": "data/flights"},
        "output": {"path": "scores/flights"},
    }
    return Job(**(given_fields | fields))


def test_the_job_file_of_the_design_is_read_whole():
    job = Job.parse(DESIGN, "flights.toml")

    assert job == Job(
        name="flights-delay",
        model="models:/flights-delay@production",
        key=("flight_id",),
        input=Input(path="data/flights/date={date}"),
        output=Output(path="scores/flights-delay/date={date}", passthrough=("carrier",)),
        drift=Drift(on_small=("retrain",), on_moderate=("review",), on_severe=("hold",)),
        schedule=Schedule(cron="30 2 * * *", timezone="America/New_York"),
    )


def test_what_a_file_does_not_say_has_the_documented_default():
    job = Job.parse(MINIMAL, "flights.toml")

    assert json.loads(job.to_json()) == {
        "name": "flights-delay",
        "model": "models:/flights-delay@production",
        "key": [],
        "on_registry_outage": "fail",
        "input": {"path": "data/flights", "columns": []},
        "output": {"path": "scores/flights", "passthrough": []},
        "execution": {
            "queue": "cpu",
            "device": "auto",
            "chunk_rows": 0,
            "max_attempts": 3,
            "error_budget": 0.001,
            "batch_seconds": 600.0,
            "tensorrt": False,
        },
        "precision": {
            "variant": "auto",
            "max_batch_error": 0.001,
            "max_mean_error": 0.005,
            "min_agreement": 0.995,
        },
        "drift": {
            "reference": "model",
            "weekday_runs": 4,
            "measure": "auto",
            "small": 0.1,
            "moderate": 0.15,
            "severe": 0.25,
            "weights": {},
            "summary": "worst",
            "persistence": 1,
            "on_small": ["log"],
            "on_moderate": ["log"],
            "on_severe": ["log"],
            "retrain": {"webhook": "", "task": "", "task_queue": ""},
            "review": {"webhook": "", "task": "", "task_queue": ""},
        },
        "schedule": None,
    }
    assert json.loads(a_job(schedule={"cron": "0 2 * * *"}).to_json())["schedule"] == {
        "cron": "0 2 * * *",
        "timezone": "UTC",
        "catch_up": "latest",
        "deadline_minutes": 180,
        "start": None,
        "end": None,
    }


def test_dates_of_a_schedule_are_toml_dates():
    text = f'{MINIMAL}\n[schedule]\ncron = "0 2 * * *"\nstart = 2026-11-01\nend = 2026-11-01'
    schedule = Job.parse(text, "flights.toml").schedule

    assert schedule is not None
    assert (schedule.start, schedule.end) == (date(2026, 11, 1), date(2026, 11, 1))


def test_a_whole_number_may_stand_where_a_number_is_asked():
    text = with_line("drift", "severe = 1")

    assert Job.parse(text, "flights.toml").drift.severe == 1.0
    assert (
        Job.parse(text, "flights.toml").fingerprint
        == Job.parse(text.replace("severe = 1", "severe = 1.0"), "flights.toml").fingerprint
    )


# Jobs built in Python


def test_a_job_built_in_python_has_the_same_faults_as_a_file():
    with pytest.raises(JobFileInvalid) as caught:
        a_job(name="Flights", execution={"max_attempts": "3"}, input="data/flights")

    assert str(caught.value).splitlines() == [
        f'Job: name is "Flights"; it must be {NAME_TEXT}.',
        'Job: input is "data/flights"; it must be a table, [input], with at least path.',
        'Job: execution.max_attempts is "3"; it must be a whole number from 1 to 100, '
        "without quotes.",
    ]


def test_a_table_built_in_python_says_its_own_faults():
    with pytest.raises(JobFileInvalid) as caught:
        Execution(max_attempts=0, colour="red")

    assert str(caught.value).splitlines() == [
        "Execution: max_attempts is 0; it must be a whole number from 1 to 100.",
        "Execution: colour is an unknown key; accepted here are queue, device, chunk_rows, "
        "max_attempts, error_budget, batch_seconds and tensorrt.",
    ]


def test_tables_as_dicts_and_as_models_make_the_same_job():
    from_models = a_job(
        key=["flight_id"],
        input=Input(path="in"),
        output=Output(path="out", passthrough=["carrier"]),
        precision=Precision(variant="fp32"),
    )
    from_dicts = a_job(
        key=("flight_id",),
        input={"path": "in"},
        output={"path": "out", "passthrough": ["carrier"]},
        precision={"variant": "fp32"},
    )
    assert from_models == from_dicts
    assert from_models.key == ("flight_id",)
    assert hash(from_models) == hash(from_dicts)


def test_faults_across_tables_are_found_between_models_too():
    with pytest.raises(JobFileInvalid, match='must not repeat "id"'):
        a_job(key=("id",), output=Output(path="scores", passthrough=("id",)))


def test_a_job_cannot_be_changed():
    job = a_job()
    with pytest.raises(ValueError, match="frozen"):
        job.name = "other"


def test_a_job_survives_pickle():
    job = Job.parse(DESIGN, "flights.toml")
    assert pickle.loads(pickle.dumps(job)) == job


# Canonical JSON and fingerprint

columns = st.lists(st.text(min_size=1), unique=True, max_size=4)
actions = st.lists(st.sampled_from(["log", "retrain", "review", "hold", "fail"]), unique=True)
shares = st.floats(0, 1)
folders = st.text(
    st.characters(categories=["L", "N", "P", "S"], exclude_characters="{}*?[]/\\"), min_size=1
)


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, object]:
    start, end = sorted([draw(st.dates()), draw(st.dates())])
    minute, hour = draw(st.integers(0, 59)), draw(st.integers(0, 23))
    return {
        "cron": f"{minute} {hour} * * *",
        "timezone": draw(st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata"])),
        "catch_up": draw(st.sampled_from(["none", "latest", "all"])),
        "deadline_minutes": draw(st.integers(1, 525_600)),
        "start": draw(st.sampled_from([None, start])),
        "end": draw(st.sampled_from([None, end])),
    }


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    small, moderate, severe = sorted(
        draw(
            st.lists(
                st.floats(0, exclude_min=True, allow_infinity=False),
                min_size=3,
                max_size=3,
                unique=True,
            )
        )
    )
    place = draw(st.sampled_from(["", "/", "s3://bucket/"]))
    return Job(
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,99}", fullmatch=True)),
        model=draw(
            st.from_regex(r"models:/[a-z]+(@[a-z]+|/Production|/[1-9][0-9]{0,3})", fullmatch=True)
        ),
        key=[f"key {column}" for column in draw(columns)],
        input={"path": f"{place}in/{draw(folders)}/{{date}}", "columns": draw(columns)},
        output={
            "path": f"{place}out/{draw(folders)}/{{run_id}}",
            "passthrough": [f"passed {column}" for column in draw(columns)],
        },
        execution={
            "device": draw(st.sampled_from(["auto", "cpu", "cuda"])),
            "chunk_rows": draw(st.integers(0, 2**70)),
            "max_attempts": draw(st.integers(1, 100)),
            "error_budget": draw(shares),
        },
        precision={
            "max_batch_error": draw(st.floats(0, allow_infinity=False)),
            "min_agreement": draw(shares),
        },
        drift={
            "small": small,
            "moderate": moderate,
            "severe": severe,
            "weights": draw(st.dictionaries(st.text(min_size=1, max_size=9), shares, max_size=3)),
            "on_small": draw(actions),
            "on_severe": draw(actions),
        },
        schedule=draw(st.none() | schedules()),
    )


@given(jobs())
def test_a_job_comes_back_from_its_json_exactly(job):
    again = Job.from_json(job.to_json())

    assert again == job
    assert again.to_json() == job.to_json()
    assert again.fingerprint == job.fingerprint


def test_canonical_json_is_sorted_compact_and_complete():
    text = a_job(schedule={"cron": "0 2 * * *", "start": date(2026, 11, 1)}).to_json()

    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert '"start":"2026-11-01"' in text
    assert '"max_attempts":3' in text


def test_the_order_of_keys_and_what_is_left_to_defaults_do_not_change_the_fingerprint():
    brief = Job.parse(MINIMAL, "brief.toml")
    wordy = Job.parse(
        "execution = { max_attempts = 3, error_budget = -0.0 }\n" + MINIMAL, "wordy.toml"
    )
    assert brief.fingerprint != wordy.fingerprint
    assert wordy.fingerprint == a_job(execution={"error_budget": 0}).fingerprint
    assert brief.fingerprint == a_job(execution={"max_attempts": 3}).fingerprint
    assert len(brief.fingerprint) == 64


def test_any_change_of_meaning_changes_the_fingerprint():
    assert a_job().fingerprint != a_job(execution={"max_attempts": 4}).fingerprint


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": 3}', '{"start": "soon"}'])
def test_json_that_is_no_job_is_refused_as_a_job_error(text):
    with pytest.raises(JobFileInvalid, match=r"^Job: "):
        Job.from_json(text)


# Templates


def test_a_template_is_filled_with_its_values():
    values = {"date": "2026-11-23", "job": "flights", "run_id": None}
    assert fill("s3://b/{job}/date={date}/{job}", values, "input.path") == (
        "s3://b/flights/date=2026-11-23/flights"
    )


def test_a_value_with_braces_is_not_filled_again():
    assert fill("{job}", {"job": "{date}", "date": "no"}, "input.path") == "{date}"


@pytest.mark.parametrize("values", [{}, {"date": None}])
def test_a_placeholder_without_a_value_is_named(values):
    with pytest.raises(TemplateUnfilled) as caught:
        fill("data/{date}", values, "input.path")

    assert caught.value.args == ("input.path", "data/{date}", "date")


# Files


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def named(name: str) -> str:
    return MINIMAL.replace("flights-delay", name)


def test_a_job_is_loaded_from_its_file(tmp_path):
    assert Job.load(write(tmp_path / "flights.toml", DESIGN)) == Job.parse(DESIGN, "")


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path):
    path = tmp_path / "flights.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert Job.load(path) == Job.parse(MINIMAL, "")


def test_each_line_of_the_error_names_the_file(tmp_path):
    path = write(tmp_path / "flights.toml", "")
    with pytest.raises(JobFileInvalid) as caught:
        Job.load(path)
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())


def test_a_file_that_cannot_be_read_is_one_fault(tmp_path):
    latin = tmp_path / "latin.toml"
    latin.write_bytes('name = "é"'.encode("latin-1"))
    below_a_file = latin / "job.toml"
    expected = {
        tmp_path / "none.toml": "there is no such file; give the path of a job file (TOML).",
        tmp_path: "this is a folder; give the path of a job file (TOML).",
        latin: "byte 9 is not UTF-8; save the job file as UTF-8 text.",
        below_a_file: "this file cannot be read (Not a directory); it must be a readable TOML "
        "file.",
    }
    for path, fault in expected.items():
        with pytest.raises(JobFileInvalid) as caught:
            Job.load(path)
        assert str(caught.value) == f"{path}: {fault}"


def test_text_that_exhausts_the_reader_is_a_fault_of_the_file():
    assert "is not TOML" in faults("key = " + "[" * 100_000)[0]


def test_a_job_is_found_by_path_by_file_name_and_by_its_name(tmp_path, monkeypatch):
    folder = tmp_path / "jobs"
    folder.mkdir()
    write(folder / "nightly.toml", named("flights-delay"))
    elsewhere = write(tmp_path / "adhoc.toml", named("adhoc"))
    bare = write(tmp_path / "bare", named("bare"))
    monkeypatch.chdir(tmp_path)

    assert find_job(str(elsewhere), folder).name == "adhoc"
    assert find_job("adhoc.toml", folder).name == "adhoc"
    assert find_job("bare", folder).name == find_job(str(bare), folder).name == "bare"
    assert find_job("nightly", folder).name == "flights-delay"
    assert find_job("nightly.toml", folder).name == "flights-delay"
    assert find_job("flights-delay", folder).name == "flights-delay"


def test_the_name_in_a_file_wins_over_the_name_of_a_file(tmp_path):
    write(tmp_path / "b.toml", named("a"))
    write(tmp_path / "a.toml", named("b"))

    assert find_job("a", tmp_path).name == "a"
    assert find_job("b", tmp_path).name == "b"


def test_a_job_that_is_broken_is_found_and_its_faults_are_told(tmp_path):
    path = write(tmp_path / "nightly.toml", named("flights-delay") + "colour = 3")

    for job in ("nightly", "flights-delay", str(path)):
        with pytest.raises(JobFileInvalid, match="colour is an unknown key"):
            find_job(job, tmp_path)


@pytest.mark.parametrize("job", ["flights", "flights.toml", "jobs/flights.toml", ""])
def test_a_job_that_is_not_there_is_answered_with_those_that_are(tmp_path, job):
    write(tmp_path / "b.toml", named("beta"))
    write(tmp_path / "a.toml", named("alpha"))
    write(tmp_path / "broken.toml", "name = ")

    with pytest.raises(JobNotFound) as caught:
        find_job(job, tmp_path)
    assert caught.value.args == (job, str(tmp_path), ["alpha", "beta"])


def test_a_jobs_folder_that_is_not_there_holds_no_jobs(tmp_path):
    assert load_jobs(tmp_path / "none") == ([], [])
    with pytest.raises(JobNotFound):
        find_job("flights", tmp_path / "none")


def test_one_broken_file_does_not_stop_the_others(tmp_path):
    write(tmp_path / "a.toml", named("alpha"))
    write(tmp_path / "b.toml", "name = ")
    write(tmp_path / "c.toml", named("gamma"))
    write(tmp_path / ".c.toml", named("hidden"))
    write(tmp_path / "notes.txt", "not a job")
    (tmp_path / "d.toml").mkdir()

    found, broken = load_jobs(tmp_path)

    assert [job.name for job in found] == ["alpha", "gamma"]
    assert [error.source for error in broken] == [
        str(tmp_path / "b.toml"),
        str(tmp_path / "d.toml"),
    ]
    assert all(isinstance(error, ScoringError) for error in broken)


def test_the_second_file_with_a_job_name_is_at_fault(tmp_path):
    first = write(tmp_path / "a.toml", named("flights"))
    second = write(tmp_path / "b.toml", named("flights"))

    found, (error,) = load_jobs(tmp_path)

    assert [job.name for job in found] == ["flights"]
    assert str(error) == (
        f'{second}: name is "flights"; {first} has that name already, and it must be a name of '
        "its own."
    )


def test_importing_the_job_does_not_import_what_runs_it():
    code = (
        "import sys, scoring.job; "
        "print({'pandas', 'pyarrow', 'mlflow', 'celery', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
