"""The choice of a variant: what a search found and a job's limits in, one variant and batch out.

Pure. With ``variant = "auto"`` native stands unless an admitted variant is clearly faster; a
variant that a job names is used or refused, never replaced by another.
"""

from __future__ import annotations

from dataclasses import dataclass

from scoring.errors import VariantRefused, VariantUnavailable
from scoring.job import Precision
from scoring.models.gate import Comparison, refusals
from scoring.models.search_result import Candidate, SearchResult

CLEARLY = 1.05
"""How many times as fast as native a variant must be to replace it: more than timing's noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What every chunk of a run uses."""

    variant: str
    recipe: str
    batch_rows: int
    """Rows of one call of the model; 0: the engine's own."""
    rows_per_second: float | None
    """As timed, with the threads of one worker child; None: it was not."""
    native_rows_per_second: float | None
    comparison: Comparison | None
    """Against native; None for native itself."""
    why: str
    """In words, for a person."""


def verdict(candidate: Candidate, limits: Precision) -> tuple[str, ...]:
    """Why a candidate may not be used; empty: it is admitted."""
    if candidate.why_not:
        return (candidate.why_not,)
    if candidate.comparison is None:  # native
        return ()
    return refusals(candidate.comparison, limits)


def choose(found: SearchResult, limits: Precision) -> Choice:
    """The variant and batch size for a run.

    Raises:
        VariantUnavailable: the job names a variant that cannot be made of this model here.
        VariantRefused: the job names one that does not agree with native within its limits.
    """
    if limits.variant != "auto":
        return _chosen(found, _named(found, limits), f"the job asks for {limits.variant}")
    admitted = [one for one in found.candidates[1:] if not verdict(one, limits)]
    fastest = max(admitted, key=_speed, default=None)
    if verdict(found.native, limits):
        return _without_native(found, fastest, limits)
    if fastest is None:
        return _chosen(
            found, found.native, f"no other variant is admitted{_why_not(found, limits)}"
        )
    if _speed(fastest) <= CLEARLY * _speed(found.native):
        return _chosen(found, found.native, "no admitted variant is clearly faster")
    times = _speed(fastest) / _speed(found.native)
    return _chosen(found, fastest, f"the fastest admitted, {times:.1f} times native")


def _without_native(found: SearchResult, fastest: Candidate | None, limits: Precision) -> Choice:
    if fastest is None:
        why = f"{found.native.why_not}, and no other variant is admitted{_why_not(found, limits)}"
        raise VariantUnavailable(found.model, "for this device", (), why)
    return _chosen(found, fastest, f"the fastest admitted; native cannot: {found.native.why_not}")


def _why_not(found: SearchResult, limits: Precision) -> str:
    """Why nothing but native may be used; one reason for all of them is said once."""
    reasons = {one.variant: "; ".join(verdict(one, limits)) for one in found.candidates[1:]}
    if len(set(reasons.values())) == 1:
        return f": {next(iter(reasons.values()))}"
    said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return f" ({said})" if said else ""


def _named(found: SearchResult, limits: Precision) -> Candidate:
    candidate = found.of(limits.variant)
    if candidate is None or candidate.why_not:
        usable = [one.variant for one in found.candidates if not verdict(one, limits)]
        why = candidate.why_not if candidate else f"there is no such variant on {found.device}"
        raise VariantUnavailable(found.model, limits.variant, usable, why)
    reasons = verdict(candidate, limits)
    if reasons:
        raise VariantRefused(found.model, limits.variant, reasons, found.rows)
    return candidate


def _chosen(found: SearchResult, candidate: Candidate, why: str) -> Choice:
    best, native = candidate.best, found.native.best
    return Choice(
        variant=candidate.variant,
        recipe=candidate.recipe,
        batch_rows=best.batch_rows if best else 0,
        rows_per_second=best.rows_per_second if best else None,
        native_rows_per_second=native.rows_per_second if native else None,
        comparison=candidate.comparison,
        why=why,
    )


def _speed(candidate: Candidate) -> float:
    best = candidate.best
    return best.rows_per_second if best else 0.0
