"""What a search found, beside a job's limits, as JSON for people."""

from __future__ import annotations

from typing import Any

from scoring.errors import VariantUnavailable
from scoring.job import Precision
from scoring.models.choice import choose, verdict
from scoring.models.search_result import Candidate, SearchResult


def search_document(found: SearchResult, limits: Precision) -> dict[str, Any]:
    """What `scoring models variants --json` shows; the choice is the one ``auto`` would make."""
    try:
        choice = choose(found, limits.model_copy(update={"variant": "auto"}))
        chosen, batch_rows, why = choice.variant, choice.batch_rows, choice.why
    except VariantUnavailable as error:
        chosen, batch_rows, why = None, None, error.reason
    return {
        "model": found.model,
        "model_digest": found.model_digest,
        "device": found.device,
        "runtimes": found.runtimes,
        "rows": found.rows,
        "sample": found.sample,
        "seconds": found.seconds,
        "chosen": chosen,
        "batch_rows": batch_rows,
        "why": why,
        "variants": [variant_row(one, limits, chosen) for one in found.candidates],
        "others": [variant_row(one, limits, None) for one in found.others],
    }


def variant_row(one: Candidate, limits: Precision, chosen: str | None) -> dict[str, Any]:
    """One variant: its numbers, whether it is admitted and why not, whether it is the chosen."""
    reasons = verdict(one, limits)
    compared, best = one.comparison, one.best
    return {
        "variant": one.variant,
        "recipe": one.recipe,
        "size_bytes": one.size_bytes or None,
        "mean_error": compared.mean_error if compared else None,
        "max_error": compared.max_error if compared else None,
        "relative": compared.relative if compared else None,
        "agreement": compared.agreement if compared else None,
        "r2": compared.determination if compared else None,
        "batch_error": compared.batch_error if compared else None,
        "labels": None
        if compared is None or compared.labels is None
        else {
            "metric": compared.labels.metric,
            "native": compared.labels.native,
            "variant": compared.labels.variant,
        },
        "batch_rows": best.batch_rows if best else None,
        "rows_per_second": best.rows_per_second if best else None,
        "timings": [
            {"batch_rows": timing.batch_rows, "rows_per_second": timing.rows_per_second}
            for timing in one.timings
        ],
        "admitted": not reasons,
        "reasons": list(reasons),
        "chosen": one.variant == chosen,
    }
