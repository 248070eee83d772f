"""The drift of one run: every column measured against the reference, judged, and ranked.

`compare` is pure, and its report is the part of drift.json that follows from two profiles alone;
where the run stands among others is added by `scoring.runs.report`, the page by
`scoring.drift.page.page`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scoring.drift.measures.figures import Figures, comparable, deciles, measure
from scoring.drift.measures.lead import Judged, Measurement, Test, Tiers, judge
from scoring.drift.policy import Overall, overall
from scoring.drift.profile.columns import CategoryProfile, Column, NumberProfile
from scoring.drift.profile.frame import Kind, Role, Unit
from scoring.drift.profile.profile import Profile
from scoring.drift.wording import MEASURES
from scoring.job import SEVERITIES, Drift, Measure, Severity

__all__ = ["BinShares", "ColumnDrift", "ColumnSummary", "DriftReport", "NameShare", "compare"]


NO_REFERENCE: Mapping[str, str] = {
    "model": "the model has no reference profile yet. Make one with "
    "`scoring models profile MODEL --from train.parquet`, or with `--from-run RUN`.",
    "previous": "no other run of this job was published before.",
    "weekday": "no run of this weekday was published before.",
}
"""Why there was nothing to compare with, by what the job names."""
NAMES_SHOWN = 10
"""New and vanished categories that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSummary:
    """One side of a column; None where it has no such number."""

    rows: int
    nulls: int
    nans: int
    null_share: float | None
    """Null and NaN rows over all rows, 0 to 1."""
    mean: float | None
    sd: float | None
    minimum: float | None
    maximum: float | None
    distinct: int | None
    """Categories counted by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BinShares:
    """One bin's share of the reference's and of the current rows, 0 to 1."""

    label: str
    reference: float
    current: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NameShare:
    """A category and its share of the rows of the side that has it, 0 to 1."""

    name: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDrift:
    """One column of the run against the reference."""

    name: str
    role: Role
    kind: Kind
    unit: Unit
    of: str | None
    """The column that this one is derived from; None: it is a column itself."""
    aspect: str
    """What of that column it counts; "" where it is the column."""
    severity: Severity
    """The tier of `value` times `weight`; of `value` alone where it has no weight."""
    measure: Measure | None
    """The measure that leads; None: not measured, `note` says why."""
    value: float | None
    """What the leading measure says."""
    test: Test | None
    """What asked whether chance accounts for it; None: too many rows to ask."""
    q: float | None
    """Chance of such a value without drift, over all columns; None where no test asked."""
    weight: float
    """Importance; 0: only shown."""
    psi: float | None
    figures: Figures | None
    note: str
    current: ColumnSummary
    reference: ColumnSummary | None
    bins: tuple[BinShares, ...]
    """Bins that hold rows on either side; empty where nothing was measured."""
    new: tuple[NameShare, ...]
    """Categories that the reference does not know, the largest first."""
    vanished: tuple[NameShare, ...]
    """Categories of the reference without a row in the run, the largest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """All columns: outputs first, then by severity and the leading measure's value."""

    severity: Severity
    """"none" without a reference."""
    worst: str | None
    """The column that counts most: the largest value times its weight."""
    psi: float | None
    """The largest PSI; None: nothing was measured."""
    score: float | None
    """The columns' values as one, which is what the severity was told by."""
    summary: Literal["worst", "mean"]
    measure: Literal["auto", Measure]
    verdict: str
    """One sentence for a person."""
    reference: str | None
    """Id of the reference's bins; None: there is no reference."""
    rows: int
    thresholds: Mapping[str, float]
    """Value at which each severity begins."""
    columns: tuple[ColumnDrift, ...]
    skipped: tuple[str, ...]
    """Columns of types that are not profiled."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values; what is not finite becomes None."""
        cleaned: dict[str, Any] = _finite(asdict(self))
        return cleaned


def compare(reference: Profile | None, current: Profile, drift: Drift) -> DriftReport:
    """Measure every column of `current` against `reference`, as the job's ``[drift]`` says."""
    framed = reference.framing() if reference else None
    tiers = Tiers(small=drift.small, moderate=drift.moderate, severe=drift.severe)
    sides = [_Sides.of(framed, column) for column in current.columns]
    measured = [side for side in sides if side.figures is not None]
    judged = judge([side.measurement() for side in measured], drift.measure, tiers)
    verdicts = dict(zip(map(id, measured), judged, strict=True))
    columns = [side.column(verdicts.get(id(side)), drift.weights, tiers) for side in sides]
    columns.sort(key=_rank)
    found = overall(
        [(c.name, c.value) for c in columns if c.value is not None],
        {c.name: c.weight for c in columns},
        tiers,
        drift.summary,
    )
    return DriftReport(
        severity=found.severity,
        worst=found.worst,
        psi=max((c.psi for c in columns if c.psi is not None), default=None),
        score=found.score,
        summary=drift.summary,
        measure=drift.measure,
        verdict=verdict(columns, found) if framed else _unmeasured(drift),
        reference=framed.framed_by if framed else None,
        rows=current.rows,
        thresholds={"small": drift.small, "moderate": drift.moderate, "severe": drift.severe},
        columns=tuple(columns),
        skipped=current.skipped,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sides:
    """A column of the run and of the reference."""

    reference: Column | None
    current: Column
    note: str
    """Why the two cannot be compared; empty where they can."""
    figures: Figures | None

    @classmethod
    def of(cls, framed: Profile | None, current: Column) -> _Sides:
        found = framed.column(current.frame.name, current.frame.role) if framed else None
        note, figures = "", None
        if found is None:
            note = "the reference does not have this column, or it has left the reference's bins"
        elif not comparable(found, current):
            note = "the reference has this column in other bins or as another type"
        elif not (found.rows and current.rows):
            note = "there are no rows to compare"
        else:
            figures = measure(found, current)
        return cls(reference=found, current=current, note=note, figures=figures)

    def measurement(self) -> Measurement:
        assert self.reference is not None
        assert self.figures is not None
        return Measurement(
            figures=self.figures,
            kind=self.current.frame.kind,
            aspect=self.current.frame.aspect,
            reference_rows=self.reference.rows,
            current_rows=self.current.rows,
        )

    def column(
        self, judged: Judged | None, weights: Mapping[str, float], tiers: Tiers
    ) -> ColumnDrift:
        frame = self.current.frame
        weight = weights.get(frame.name, weights.get(frame.of or "", 1.0))
        return ColumnDrift(
            name=frame.name,
            role=frame.role,
            kind=frame.kind,
            unit=frame.unit,
            of=frame.of,
            aspect=frame.aspect,
            severity=tiers.severity(judged.value * (weight or 1.0)) if judged else "none",
            measure=judged.measure if judged else None,
            value=judged.value if judged else None,
            test=judged.test if judged else None,
            q=judged.q if judged else None,
            weight=weight,
            psi=self.figures.psi if self.figures else None,
            figures=self.figures,
            note=self.note,
            current=_summary(self.current),
            reference=_summary(self.reference) if self.reference else None,
            bins=self._bins(),
            new=_missing_from(self.reference, self.current) if judged else (),
            vanished=_missing_from(self.current, self.reference) if judged else (),
        )

    def _bins(self) -> tuple[BinShares, ...]:
        if self.reference is None or self.figures is None:
            return ()
        before, now = self.reference.rows, self.current.rows
        return tuple(
            BinShares(label=label, reference=r / before, current=c / now)
            for label, r, c in zip(*deciles(self.reference, self.current), strict=True)
            if r or c
        )


def _rank(column: ColumnDrift) -> tuple[bool, bool, int, float, str]:
    """Outputs first; measured before unmeasured, then what moved most."""
    return (
        column.role != "output",
        column.value is None,
        -SEVERITIES.index(column.severity),
        -(column.value or 0.0) * (column.weight or 1.0),
        column.name,
    )


def _summary(column: Column) -> ColumnSummary:
    numeric = isinstance(column, NumberProfile)
    nans = column.nans if isinstance(column, NumberProfile) else 0
    moments = column.moments if isinstance(column, NumberProfile) else None
    return ColumnSummary(
        rows=column.rows,
        nulls=column.nulls,
        nans=nans,
        null_share=(column.nulls + nans) / column.rows if column.rows else None,
        mean=moments.mean if moments else None,
        sd=moments.sd if moments else None,
        minimum=moments.minimum if moments else None,
        maximum=moments.maximum if moments else None,
        distinct=None if numeric else len(column.counts),
    )


def _missing_from(other: Column | None, column: Column | None) -> tuple[NameShare, ...]:
    """The largest categories of `column` that `other` counted by name nowhere."""
    if not isinstance(other, CategoryProfile) or not isinstance(column, CategoryProfile):
        return ()
    if other.other:  # some of its rows are in categories without a name, perhaps in these
        return ()
    only = [name for name in column.counts if name not in other.counts]
    only.sort(key=lambda name: (-column.counts[name], name))
    return tuple(
        NameShare(name=name, share=column.counts[name] / column.rows) for name in only[:NAMES_SHOWN]
    )


def verdict(columns: Sequence[ColumnDrift], found: Overall) -> str:
    """The report in one sentence."""
    measured = [column for column in columns if column.value is not None]
    if not measured:
        return f"Drift was not measured: {_why_not(columns)}."
    weighed = [column for column in measured if column.weight > 0]
    if not weighed:
        return "Drift was measured and does not count: every column has the weight 0."
    moved = [column for column in weighed if column.severity != "none"]
    worst = next(column for column in weighed if column.name == found.worst)
    if not moved:
        return (
            f"No drift: none of {_columns(len(weighed))} moved as far as the first threshold "
            f"(furthest {_shown(worst)})."
        )
    how_far = (
        f"{found.severity.capitalize()} drift"
        if found.severity != "none"
        else "No drift on the whole"
    )
    return (
        f"{how_far}: {len(moved)} of {_columns(len(weighed))} moved, most of all "
        f"{_shown(worst)}{_outputs(moved, weighed, worst)}."
    )


def _why_not(columns: Sequence[ColumnDrift]) -> str:
    if columns and not any(column.current.rows for column in columns):
        return "the run has no rows"
    return "the run and the reference have no column to compare"


def _unmeasured(drift: Drift) -> str:
    return f"Drift was not measured: {NO_REFERENCE.get(drift.reference, 'there is no reference.')}"


def _outputs(
    moved: Sequence[ColumnDrift], weighed: Sequence[ColumnDrift], worst: ColumnDrift
) -> str:
    """Whether the scores went along, which is what people ask next."""
    outputs = [column for column in weighed if column.role == "output"]
    if not outputs or worst.role == "output":
        return ""
    went_along = [column for column in moved if column.role == "output"]
    return (
        f"; the scores moved too, {_shown(went_along[0])}" if went_along else "; the scores did not"
    )


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _shown(column: ColumnDrift) -> str:
    assert column.measure is not None
    weighed = "" if column.weight == 1 else f", weight {column.weight:g}"
    return f"{column.name} ({MEASURES[column.measure].name} {column.value or 0.0:.3f}{weighed})"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
