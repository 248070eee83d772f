"""What Evidently says of some data sets, recorded for `test_drift_agreement.py`.

Evidently needs pandas below 3, which the project does not, so it has an environment of its own::

    python -m venv ENVIRONMENT
    ENVIRONMENT/bin/pip install evidently "pandas<3"
    ENVIRONMENT/bin/python tests/unit/evidently_values.py

writes ``tests/unit/data/evidently.json``: the version, and for each data set a digest of the data
and what each of its methods says. The test makes the same data from the same seeds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RECORDED = Path(__file__).parent / "data" / "evidently.json"

NUMBER_METHODS = ("ks", "wasserstein")
CATEGORY_METHODS = ("jensenshannon", "chisquare", "psi")

Values = np.ndarray[Any, Any]


def datasets() -> Iterator[tuple[str, tuple[str, ...], Values, Values]]:
    """Name, Evidently's methods, reference and current values; the same whenever it is called."""
    rng = np.random.default_rng(20_26)
    normal = rng.normal
    yield "same", NUMBER_METHODS, normal(size=20_000), normal(size=12_000)
    yield "shifted", NUMBER_METHODS, normal(size=20_000), normal(0.3, size=12_000)
    yield "small samples", NUMBER_METHODS, normal(size=900), normal(0.12, size=700)
    yield "scaled", NUMBER_METHODS, rng.uniform(5, 9, 20_000), rng.uniform(5, 8, 12_000)
    yield "skewed", NUMBER_METHODS, rng.gamma(3, 2, 20_000), rng.gamma(3.3, 2, 12_000)
    yield (
        "whole",
        NUMBER_METHODS,
        _floats(rng.poisson(40, 20_000)),
        _floats(rng.poisson(41, 12_000)),
    )
    letters = np.array([f"letter {i:02}" for i in range(30)])
    few, many = (np.sort(rng.dirichlet(np.full(count, 5.0)))[::-1] for count in (6, 30))
    yield "categories", CATEGORY_METHODS, *_drawn(rng, letters[:6], few, (400_000, 900), 0.04)
    yield "many categories", CATEGORY_METHODS, *_drawn(rng, letters, many, (400_000, 2_500), 0.01)
    yield "new category", ("jensenshannon",), *_drawn(rng, letters[:5], few[:5], (9_000, 4_000), 0)
    flags = rng.random(30_000) < 0.2, rng.random(9_000) < 0.31
    yield "flag", (*NUMBER_METHODS, "jensenshannon", "psi"), _floats(flags[0]), _floats(flags[1])


def digest(reference: Values, current: Values) -> str:
    """Which data these are."""
    found = hashlib.sha256()
    for side in (reference, current):
        found.update(side.tobytes() if side.dtype.kind == "f" else "\0".join(side).encode())
    return found.hexdigest()[:16]


def _floats(values: Values) -> Values:
    return values.astype(np.float64)


def _drawn(
    rng: np.random.Generator, names: Values, shares: Values, sizes: tuple[int, int], moved: float
) -> tuple[Values, Values]:
    """Two samples; of the second `moved` comes out of the first category into the last.

    Where nothing moves a category is added that the first does not have.
    """
    after = shares / shares.sum()
    before = after.copy()
    if moved:
        after[0], after[-1] = after[0] - moved, after[-1] + moved
    else:
        names, before = np.append(names, "letter 99"), np.append(before, 0.0)
        after = np.append(after * 0.95, 0.05)
    return rng.choice(names, sizes[0], p=before), rng.choice(names, sizes[1], p=after)


def main() -> None:
    import evidently
    import pandas
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    found = {}
    for name, methods, reference, current in datasets():
        kind = "numerical_columns" if reference.dtype.kind == "f" else "categorical_columns"
        definition = DataDefinition(**{kind: ["x"]})
        sides = [
            Dataset.from_pandas(pandas.DataFrame({"x": side}), data_definition=definition)
            for side in (current, reference)
        ]
        run = Report([ValueDrift(column="x", method=method) for method in methods]).run(*sides)
        values = [float(metric["value"]) for metric in run.dict()["metrics"]]
        found[name] = {
            "data": digest(reference, current),
            **dict(zip(methods, values, strict=True)),
        }
    document = {"evidently": evidently.__version__, "values": found}
    RECORDED.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
