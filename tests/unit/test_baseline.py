"""What a run is compared with: which earlier runs count, and that together they count exactly."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, update
from structlog.testing import capture_logs

from scoring.drift.profile.category_profile import name_rank
from scoring.drift.profile.columns import NAMED, CategoryProfile, NumberProfile
from scoring.drift.profile.frame import frames_for
from scoring.drift.profile.pooled import pooled
from scoring.drift.profile.profile import Profile, Profiler
from scoring.errors import ReferenceUnreadable
from scoring.job import Drift, Input, Job, Output, Schedule
from scoring.ledger import RunRecord
from scoring.ledger.tables import runs
from scoring.models import Version
from scoring.runs import Context, Occasion, baseline, on_date
from scoring.runs.baseline import Baseline, day_of, find_baseline
from scoring.runs.nights import other_nights
from scoring.runs.report import severities_before
from tests.conftest import make_settings
from tests.contract.ledgers import finishing_run

ROWS = 500
VERSION = Version(model="m", name="m", version="1", source="", profile_uri=None)
COLUMNS = [("amount", "feature", pa.float64()), ("airport", "feature", pa.string())]
WITHOUT_INFINITIES = """{"version": 1, "skipped": [], "columns": [{"name": "x", "role": "feature",
 "kind": "number", "rows": 0, "nulls": 0, "bins": [], "counts": [], "unit": "plain",
 "edges": [1.0], "origin": 0.0, "nans": 0, "infinities": [], "moments": null}]}"""
WITHOUT_EDGES = """{"version": 1, "skipped": [], "columns": [{"name": "x", "role": "feature",
 "kind": "number", "rows": 2, "nulls": 0, "bins": [48588, 48998], "counts": [1, 1], "unit": "plain",
 "edges": null, "origin": 1e300, "nans": 0, "infinities": [0, 0],
 "moments": {"count": 2, "mean": 0.5, "m2": 0.32, "minimum": 0.1, "maximum": 0.9}}]}"""
MONDAYS = [f"2026-11-{day:02}" for day in (2, 9, 16, 23, 30)]


@dataclass
class OfSlot:
    """As much of a run as tells its night."""

    slot: str | None


@contextmanager
def capture_statements(context: Context) -> Iterator[list[str]]:
    """What the ledger's database is asked meanwhile."""
    found: list[str] = []

    def asked(*arguments: Any) -> None:
        if arguments[2].startswith("SELECT"):
            found.append(arguments[2])

    engine = context.ledger.database.engine
    event.listen(engine, "before_cursor_execute", asked)
    yield found
    event.remove(engine, "before_cursor_execute", asked)


class SilentBell:
    """Wakes nobody."""

    def chunks(self, run: RunRecord, numbers: Sequence[int], delay: float = 0.0) -> None: ...

    def finish(self, run: RunRecord) -> None: ...

    def waiting(self, queue: str) -> int:
        return 0


@dataclass
class Nights:
    """Runs of a job without workers: each counts its rows as a run does, and is published."""

    context: Context
    folder: Path
    job: Job

    def baseline(self, slot: str | None) -> Baseline | None:
        occasion = Occasion(slot=slot, scheduled=True) if slot and "T" in slot else on_date(slot)
        return find_baseline(self.context, self.job, occasion, VERSION)

    def run(self, slot: str | None, rows: dict[str, Any], state: str = "published") -> str:
        """Score a night: what it is compared with frames what it counts."""
        return self.ended(slot, counted(self.baseline(slot), rows).to_json(), state)

    def ended(
        self, slot: str | None, profile: str | None, state: str = "published", **found: Any
    ) -> str:
        """A run that left this text as its profile, or none."""
        runs_, name = self.context.ledger.runs, self.job.name
        run_id, hold = finishing_run(self.context.ledger, count=1, job=name, slot=slot)
        artifacts = self.folder / run_id
        artifacts.mkdir()
        if profile is not None:
            (artifacts / "profile.json").write_text(profile, encoding="utf-8")
        with self.context.ledger.database.transaction() as connection:
            place = update(runs).where(runs.c.id == run_id).values(artifacts=str(artifacts))
            connection.execute(place)
        assert runs_.end(hold, state, **found)
        return run_id

    def age(self, run_id: str, days: float) -> None:
        with self.context.ledger.database.transaction() as connection:
            earlier = runs.c.created_at - days * 86_400
            connection.execute(update(runs).where(runs.c.id == run_id).values(created_at=earlier))


def counted(baseline: Baseline | None, rows: dict[str, Any]) -> Profile:
    """Rows as a run counts them: in the reference's bins, or from the column's minimum on."""
    origins = {"amount": float(min(rows["amount"]))} if len(rows["amount"]) else {}
    columns = [one for one in COLUMNS if one[0] in rows]
    profiler = Profiler(frames_for(baseline.profile if baseline else None, columns, origins))
    types = {name: dtype for name, _, dtype in COLUMNS}
    profiler.add({name: pa.array(values, types[name]) for name, values in rows.items()})
    return profiler.profile()


def of_airports(names: list[str]) -> dict[str, Any]:
    return {"amount": [0.0] * len(names), "airport": names}


def night(seed: int, shift: float = 0.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    names = ["JFK", "LGA", "EWR", f"NEW{seed}"]
    return {
        "amount": rng.gamma(2.0, 10.0, ROWS) + shift,
        "airport": rng.choice(names, ROWS).tolist(),
    }


@pytest.fixture
def nights(tmp_path: Path, sqlite_template: Path) -> Iterator[Callable[..., Nights]]:
    """Makes a job's nights, by what its job file says about drift."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "ledger.db").write_bytes(sqlite_template.read_bytes())
    context = Context.open(make_settings(home, f"sqlite:///{home}/mlflow.db"), SilentBell())

    def make(reference: str, schedule: Schedule | None = None, **drift: Any) -> Nights:
        job = Job(
            name="nightly",
            model="models:/m@production",
            input=Input(path="in"),
            output=Output(path="out"),
            drift=Drift(reference=reference, **drift),
            schedule=schedule,
        )
        return Nights(context, tmp_path, job)

    yield make
    context.ledger.database.engine.dispose()


def amounts(profile: Profile) -> NumberProfile:
    column = profile.column("amount", "feature")
    assert isinstance(column, NumberProfile)
    return column


def airports(profile: Profile) -> CategoryProfile:
    column = profile.column("airport", "feature")
    assert isinstance(column, CategoryProfile)
    return column


# Several runs in one


def test_bins_stay_as_the_first_run_has_them_and_later_runs_add_up_exactly(
    nights: Callable[..., Nights],
) -> None:
    mondays = nights("weekday", weekday_runs=3)
    rows = {day: night(seed) for seed, day in enumerate(MONDAYS)}
    edges = set()
    for before, day in enumerate(MONDAYS):
        found = mondays.baseline(day)
        if found is not None:
            last = [rows[monday] for monday in MONDAYS[max(0, before - 3) : before]]
            values = np.concatenate([one["amount"] for one in last])
            bounds = np.array(amounts(found.profile).frame.edges)
            expected = np.bincount(np.searchsorted(bounds, values, side="right"))
            assert amounts(found.profile).bins()[: len(expected)].tolist() == expected.tolist()
            names = Counter(name for one in last for name in one["airport"])
            assert airports(found.profile).counts == names
            assert found.compared_with.rows == len(values)
            edges.add(amounts(found.profile).frame.edges)
        mondays.run(day, rows[day])

    assert len(edges) == 1


def test_columns_that_a_run_counted_in_other_bins_are_left_out_and_named(
    nights: Callable[..., Nights],
) -> None:
    mondays = nights("weekday")
    alone = [
        mondays.ended(day, counted(None, night(seed)).to_json())
        for seed, day in enumerate(MONDAYS[:2])
    ]

    with capture_logs() as lines:
        found = mondays.baseline(MONDAYS[2])

    assert found is not None
    assert amounts(found.profile).rows == ROWS
    assert airports(found.profile).rows == 2 * ROWS
    assert found.compared_with.runs == (alone[1], alone[0])
    assert [line["columns"] for line in lines] == [{alone[0]: ["amount"]}]


def test_a_column_that_has_left_its_bins_is_counted_anew_and_then_measured_again(
    nights: Callable[..., Nights],
) -> None:
    days = nights("previous")
    days.run("2026-11-02", night(1))
    days.run("2026-11-03", night(2, shift=1_000))

    with capture_logs() as lines:
        found = days.baseline("2026-11-04")
    assert found is not None
    assert [column.frame.name for column in found.profile.columns] == ["airport"]
    assert [line["event"] for line in lines] == ["reference_outgrown"]

    days.run("2026-11-04", night(3, shift=1_000))
    again = days.baseline("2026-11-05")
    assert again is not None
    assert amounts(again.profile).moments.minimum >= 1_000  # type: ignore[union-attr]
    assert len(amounts(again.profile).frame.edges or ()) > 200


@given(data=st.data())
def test_every_category_that_is_named_has_all_its_rows(data: st.DataObject) -> None:
    names = st.lists(st.sampled_from("abcdef"), max_size=30)
    last = [data.draw(names), data.draw(names), data.draw(names)]
    profiles: list[Profile] = []
    for rows in last:
        known = pooled(profiles[:1]).profile if profiles and data.draw(st.booleans()) else None
        baseline = Baseline(profile=known, compared_with=None) if known else None  # type: ignore[arg-type]
        profiles.insert(0, counted(baseline, of_airports(rows)))

    together = airports(pooled(profiles).profile)

    truth = Counter(name for rows in last for name in rows)
    assert (together.counts, together.other, together.rows) == (truth, 0, truth.total())


def test_categories_beyond_those_counted_by_name_stay_exact_or_go_among_the_others() -> None:
    names = sorted((f"name{number}" for number in range(2 * NAMED)), key=name_rank)
    common, seldom = names[:200], random.Random(1).sample(names[200:], 2 * NAMED - 200)
    last = [of_airports(common * 30 + seldom[start : start + 1_200]) for start in (0, 600, 0)]
    few = counted(None, of_airports(seldom[1_200:] * 5))
    known = Baseline(profile=pooled([few]).profile, compared_with=None)  # type: ignore[arg-type]
    profiles = [counted(None, last[0]), counted(None, last[1]), counted(known, last[2])]

    together = airports(pooled(profiles).profile)

    truth = Counter(name for rows in last for name in rows["airport"])
    assert 100 < len(together.counts) <= NAMED
    assert {name: truth[name] for name in together.counts} == together.counts
    assert sum(together.counts.values()) + together.other == together.rows == truth.total()


def test_free_text_is_added_up_without_names() -> None:
    texts = [[f"text {night} {row}" for row in range(ROWS)] for night in range(2)]
    first = counted(None, of_airports(texts[0]))
    second = counted(
        Baseline(profile=pooled([first]).profile, compared_with=None), of_airports(texts[1])
    )  # type: ignore[arg-type]

    together = airports(pooled([second, first]).profile)

    assert together.frame.free_text
    assert (together.rows, together.counts, together.other) == (2 * ROWS, {}, 2 * ROWS)


# Which runs


def test_only_published_runs_of_the_same_weekday_before_this_day_count(
    nights: Callable[..., Nights],
) -> None:
    mondays = nights("weekday")
    wanted = [mondays.run(day, night(1)) for day in MONDAYS[:2]]
    for day in ("2026-11-10", "2026-11-22"):
        mondays.run(day, night(2))
    mondays.run(MONDAYS[2], night(3), state="held")
    mondays.run(MONDAYS[3], night(4))
    mondays.run(MONDAYS[4], night(5))

    found = mondays.baseline(MONDAYS[3])

    assert found is not None
    assert found.compared_with.to_dict() == {
        "kind": "weekday",
        "rows": 2 * ROWS,
        "runs": wanted[::-1],
        "path": None,
    }


def test_a_day_that_was_scored_twice_counts_once_as_it_was_last(
    nights: Callable[..., Nights],
) -> None:
    mondays = nights("weekday")
    mondays.run("2026-11-16T02:30:00+01:00", night(1))
    again = mondays.run("2026-11-16", night(2))

    found = mondays.baseline("2026-11-23T02:30:00+01:00")

    assert found is not None
    assert found.compared_with.runs == (again,)


def test_a_slot_has_the_weekday_of_its_own_clock(nights: Callable[..., Nights]) -> None:
    mondays = nights("weekday")
    monday_in_tokyo = mondays.run("2026-11-16T00:30:00+09:00", night(1))
    mondays.run("2026-11-17T00:30:00+09:00", night(2))

    found = mondays.baseline("2026-11-23T00:30:00+09:00")

    assert found is not None
    assert found.compared_with.runs == (monday_in_tokyo,)


def test_a_run_without_a_date_has_the_day_of_its_creation_in_the_schedules_zone(
    nights: Callable[..., Nights],
) -> None:
    weekly = nights("weekday", Schedule(cron="0 3 * * 1", timezone="Asia/Tokyo"))
    last_week = weekly.run(None, night(1))
    weekly.age(last_week, 7)
    yesterday = weekly.run(None, night(1))
    weekly.age(yesterday, 1)
    weekly.run(None, night(2))

    found = weekly.baseline(None)

    assert found is not None
    assert found.compared_with.runs == (last_week,)
    late = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
    assert day_of(None, late, ZoneInfo("Asia/Tokyo")) == date(2026, 11, 23)


def test_the_previous_run_is_the_newest_published_one_of_another_night(
    nights: Callable[..., Nights],
) -> None:
    days = nights("previous")
    days.run("2026-11-20", night(1))
    before = days.run("2026-11-21", night(2))
    days.run("2026-11-22", night(3))
    days.run("2026-11-23", night(4), state="failed")

    found = days.baseline("2026-11-22")

    assert found is not None
    assert found.compared_with.to_dict() == {
        "kind": "previous",
        "rows": ROWS,
        "runs": [before],
        "path": None,
    }


def test_the_previous_run_is_found_behind_any_number_of_runs_of_this_night(
    nights: Callable[..., Nights], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline, "PAGE", 1)
    days = nights("previous")
    before = days.run("2026-11-21", night(1))
    for _ in range(3):
        days.ended("2026-11-22", None)
    days.ended("2026-11-22T02:30:00+00:00", None)

    found = days.baseline("2026-11-22")

    assert found is not None
    assert found.compared_with.runs == (before,)


def test_no_more_runs_are_read_than_a_previous_one_needs(nights: Callable[..., Nights]) -> None:
    days = nights("previous")
    for _ in range(3):
        days.ended(None, None)
    published = baseline._published(days.context, days.job, 2)

    with capture_statements(days.context) as statements:
        next(other_nights(published, than="2026-11-22"))

    assert len(statements) == 1
    assert len(list(published)) == 2


def test_a_night_scored_again_by_its_date_is_one_night_of_drift(
    nights: Callable[..., Nights],
) -> None:
    days = nights("previous")
    slots = ["2026-11-21T02:30:00-05:00", "2026-11-23T02:30:00-05:00", "2026-11-23", None, None]
    severities: list[Any] = ["small", "severe", "moderate", "none", "severe"]
    for age, (slot, severity) in enumerate(zip(slots, severities, strict=True)):
        run_id = days.ended(slot, None, drift_severity=severity, report="drift.html")
        days.age(run_id, 10 - age)
    ledger = days.context.ledger.runs
    again, other = (
        ledger.get(days.ended(slot, None)) for slot in ("2026-11-23", "2026-11-24T02:30:00-05:00")
    )

    assert severities_before(days.context, other) == ["severe", "none", "moderate", "small"]
    assert severities_before(days.context, again) == ["severe", "none", "small"]


SLOTS = [
    None,
    "2026-11-22",
    "2026-11-23",
    "2026-11-23T02:30:00-05:00",
    "2026-11-23T14:30:00-05:00",
    "2026-11-24T02:30:00-05:00",
]


@given(st.lists(st.sampled_from(SLOTS), max_size=12), st.sampled_from(SLOTS))
def test_of_each_night_the_newest_run_counts(slots: list[str | None], than: str | None) -> None:
    def same(one: str | None, other: str | None) -> bool:
        if one is None or other is None:
            return False
        return one == other or (min(len(one), len(other)) == 10 and one[:10] == other[:10])

    kept = [run.slot for run in other_nights([OfSlot(slot) for slot in slots], than)]  # type: ignore[misc]

    expected: list[str | None] = []
    for slot in slots:
        if not any(same(slot, other) for other in [than, *expected]):
            expected.append(slot)
    assert kept == expected


@pytest.mark.parametrize("reference", ["previous", "weekday"])
def test_nothing_to_compare_with_yet_is_no_fault(
    nights: Callable[..., Nights], reference: str
) -> None:
    job = nights(reference)
    assert job.baseline(MONDAYS[0]) is None

    job.ended(MONDAYS[0], Profile().to_json())
    job.ended(MONDAYS[1], counted(None, {"amount": [], "airport": []}).to_json())
    assert job.baseline(MONDAYS[2]) is None


# What can be wrong with a profile


@pytest.mark.parametrize("reference", ["previous", "weekday"])
@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": 99}',
        '{"version": 1, "columns": [{}]}',
        WITHOUT_INFINITIES,
        WITHOUT_EDGES,
    ],
)
def test_a_profile_that_is_gone_or_damaged_is_passed_over_and_said_so(
    nights: Callable[..., Nights], reference: str, text: str | None
) -> None:
    job = nights(reference)
    whole = job.run(MONDAYS[0], night(1))
    damaged = job.ended(MONDAYS[1], text)

    with capture_logs() as lines:
        found = job.baseline(MONDAYS[2])

    assert found is not None
    assert found.compared_with.runs == (whole,)
    (line,) = lines
    assert (line["event"], line["runs"]) == ("earlier_profiles_unreadable", 1)
    assert "profile.json: " in line["first"][damaged]


def test_a_profile_at_a_path_is_taken_as_it_is(
    nights: Callable[..., Nights], tmp_path: Path
) -> None:
    path = tmp_path / "reference.json"
    path.write_text(counted(None, night(1)).to_json(), encoding="utf-8")

    found = nights(str(path)).baseline(MONDAYS[0])

    assert found is not None
    assert found.profile == Profile.from_json(path.read_text("utf-8")).as_reference()
    assert json.loads(json.dumps(found.compared_with.to_dict())) == {
        "kind": "path",
        "rows": ROWS,
        "runs": [],
        "path": str(path),
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"\xff", "can't decode byte"),
        (b"[]", "this is no profile"),
        (b'{"version": 99}', "this profile has version 99"),
        (WITHOUT_INFINITIES.encode(), "column 'x': not enough values"),
    ],
)
def test_a_profile_at_a_path_that_cannot_be_used_stops_the_run(
    nights: Callable[..., Nights], tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "reference.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ReferenceUnreadable, match=reason):
        nights(str(path)).baseline(MONDAYS[0])
