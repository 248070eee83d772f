"""The drift report of one run: every column measured against the reference, worst first.

`compare` is pure; `DriftReport.to_dict` is what drift.json holds and `render_html` one page
that needs nothing else: no script, no font, no network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from scoring.drift.columns import CategoryProfile, NumberProfile
from scoring.drift.frame import Kind, Role, Unit, readable
from scoring.drift.measures import SEVERITIES, Severity, comparable, deciles, psi, severity
from scoring.drift.profile import Profile

__all__ = ["BinShares", "ColumnDrift", "ColumnSummary", "DriftReport", "compare", "render_html"]

NO_REFERENCE = (
    "Drift was not measured, because the model has no reference profile. Make one with "
    "`scoring models profile MODEL --from-run RUN`, or with `--from train.parquet`."
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BinShares:
    """One bin's share of the reference's and of the current rows, 0 to 1."""

    label: str
    reference: float
    current: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDrift:
    """One column of the run against the reference."""

    name: str
    role: Role
    kind: Kind
    unit: Unit
    psi: float | None
    """None: not measured, `note` says why."""
    severity: Severity
    note: str
    current: ColumnSummary
    reference: ColumnSummary | None
    bins: tuple[BinShares, ...]
    """Bins that hold rows on either side; empty where PSI was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """All columns, the largest PSI first, outputs before features on ties."""

    severity: Severity
    """That of the worst column; "none" without a reference."""
    worst: str | None
    """The column of the largest PSI."""
    psi: float | None
    """The largest PSI; None: nothing was measured."""
    reference: str | None
    """Id of the reference's bins; None: there is no reference."""
    rows: int
    verdict: str
    """One sentence for a person."""
    thresholds: Mapping[str, float]
    """PSI at which each severity begins."""
    columns: tuple[ColumnDrift, ...]
    skipped: tuple[str, ...]
    """Columns of types that are not profiled."""

    def to_dict(self, identity: Mapping[str, str | int | None] | None = None) -> dict[str, Any]:
        """JSON values, `identity` (which run this is) first; what is not finite becomes None."""
        document = {**(identity or {}), **asdict(self)}
        cleaned: dict[str, Any] = _finite(document)
        return cleaned


def compare(
    reference: Profile | None,
    current: Profile,
    *,
    small: float,
    moderate: float,
    severe: float,
) -> DriftReport:
    """Measure every column of `current` against `reference`."""
    framed = reference.as_reference() if reference else None
    columns = [
        _column(
            framed.column(column.frame.name, column.frame.role) if framed else None,
            column,
            thresholds=(small, moderate, severe),
        )
        for column in current.columns
    ]
    columns.sort(key=lambda c: (-1.0 if c.psi is None else c.psi, c.role == "output"), reverse=True)
    worst = columns[0] if columns and columns[0].psi is not None else None
    return DriftReport(
        severity=worst.severity if worst else "none",
        worst=worst.name if worst else None,
        psi=worst.psi if worst else None,
        reference=framed.framed_by if framed else None,
        rows=current.rows,
        verdict=_verdict(columns, worst, small) if framed else NO_REFERENCE,
        thresholds={"small": small, "moderate": moderate, "severe": severe},
        columns=tuple(columns),
        skipped=current.skipped,
    )


def render_html(report: DriftReport, identity: Mapping[str, str | int | None]) -> str:
    """The report as one self-contained page; names and values are escaped."""
    from jinja2 import Environment, StrictUndefined

    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page.filters["share"] = lambda share: "-" if share is None else f"{share:.2%}"
    page.globals["value"] = lambda value, unit: "-" if value is None else readable(value, unit)
    page.globals["spread"] = _spread
    source = files("scoring.drift").joinpath("report.html.j2").read_text(encoding="utf-8")
    return page.from_string(source).render(
        report=report, identity={k: v for k, v in identity.items() if v is not None}
    )


def _column(
    reference: NumberProfile | CategoryProfile | None,
    current: NumberProfile | CategoryProfile,
    thresholds: tuple[float, float, float],
) -> ColumnDrift:
    index: float | None = None
    note = ""
    bins: tuple[BinShares, ...] = ()
    if reference is None:
        note = "the reference does not have this column"
    elif not comparable(reference, current):
        note = "the reference has this column in other bins or as another type"
    elif not (reference.rows and current.rows):
        note = "there are no rows to compare"
    else:
        binned = deciles(reference, current)
        index = psi(binned[1], binned[2])
        bins = tuple(
            BinShares(label=label, reference=r / reference.rows, current=c / current.rows)
            for label, r, c in zip(*binned, strict=True)
            if r or c
        )
    return ColumnDrift(
        name=current.frame.name,
        role=current.frame.role,
        kind=current.frame.kind,
        unit=current.frame.unit,
        psi=index,
        severity="none" if index is None else severity(index, *thresholds),
        note=note,
        current=_summary(current),
        reference=_summary(reference) if reference else None,
        bins=bins,
    )


def _summary(column: NumberProfile | CategoryProfile) -> ColumnSummary:
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
    )


def _spread(sd: float | None, unit: Unit) -> str:
    if sd is None:
        return "-"
    return f"{sd:.6g}" if unit == "plain" else f"{sd:.6g} {unit}"


def _verdict(columns: list[ColumnDrift], worst: ColumnDrift | None, small: float) -> str:
    if worst is None:
        return "Drift was not measured: the run and the reference have no column to compare."
    measured = [column for column in columns if column.psi is not None]
    moved = sum(SEVERITIES.index(column.severity) > 0 for column in measured)
    if not moved:
        return (
            f"No drift: all {len(measured)} columns lie below PSI {small:g} "
            f"(largest {worst.psi:.3f}, in {worst.name})."
        )
    return (
        f"{worst.severity.capitalize()} drift: {moved} of {len(measured)} columns moved, "
        f"most of all {worst.name} (PSI {worst.psi:.3f})."
    )


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
