"""Models whose conversion to float32 is really wrong, for what must refuse them.

They convert without a complaint and score what they should not: only a comparison with the model
as registered can tell.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

MIDNIGHT = 1_767_225_600.0
"""2026-01-01 in seconds since 1970."""
CHANGE = 256
"""Seconds after midnight."""


def moments(rows: int = 2_000, seed: int = 0) -> tuple[Pipeline, pd.DataFrame]:
    """A classifier that tells what came late within ten minutes, and a frame for it.

    ``seen_at`` is in seconds since 1970, of which float32 keeps every 128th: the last minute before
    the change and the first after it become the same moment.
    """
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "seen_at": MIDNIGHT + np.floor(rng.uniform(0, 600, rows)),
            "amount": rng.uniform(0, 100, rows).round(2),
        }
    )
    late = (frame["seen_at"] - MIDNIGHT > CHANGE).astype(int)
    return make_pipeline(StandardScaler(), LogisticRegression(C=100)).fit(frame, late), frame
