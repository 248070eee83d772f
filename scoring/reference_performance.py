"""How good a model version is on the labelled rows that its reference is made from.

It is measured in the pass that profiles them, and kept with the version: what evaluated runs are
compared with later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from scoring import telemetry
from scoring.data import source
from scoring.data.labels import truth
from scoring.drift.performance.answers import Collected, Fit, Truth, fit
from scoring.drift.performance.performance import measured
from scoring.errors import InputTypeMismatch

log = telemetry.logger(__name__)

SEED = 1
"""Of the intervals: the same rows have the same ones."""
BATCH_ROWS = 262_144


class LabelledRows:
    """What a version says of labelled rows, collected pass by pass; the last one counts."""

    def __init__(self, judged: Fit, label: str, output: pa.DataType, rows: int) -> None:
        self.label = label
        self._judged, self._output, self._rows = judged, output, rows
        self.begin()

    @classmethod
    def of(
        cls, scanned: Sequence[source.Scanned], label: str, outputs: Mapping[str, pa.DataType]
    ) -> LabelledRows | None:
        """The rows of the files, if an output can be judged by their label; else a warning.

        Raises:
            InputTypeMismatch: the column cannot be a label.
        """
        known = [
            _truth(batch.column(0), one.file.path, label)
            for one in scanned
            for batch in one.rows([label], BATCH_ROWS)
        ]
        kinds = {labels.type for labels in known}
        found = None
        if len(kinds) == 1:
            labels = pa.chunked_array(known).drop_null()
            found = fit(pa.schema(outputs.items()), Truth.of(labels), label)
        if found is None:
            log.warning("performance_not_measured", label=label, outputs=list(outputs))
            return None
        return cls(found, label, outputs[found.output], len(labels))

    def begin(self) -> None:
        """Forget the rows so far: a pass over all of them begins."""
        self._collected = Collected(self._judged.kind, self._output, self._rows, SEED)

    def add(self, outputs: Mapping[str, pa.Array], labels: pa.Array, path: str) -> None:
        """A batch of outputs [row] and the labels of the same rows, as the file has them."""
        known = _truth(labels, path, self.label)
        mine = outputs[self._judged.output]
        valid = known.is_valid()
        self._collected.add(mine.filter(valid), known.filter(valid))

    def performance(self) -> str | None:
        """The performance as JSON; None where no row has a label and a usable answer."""
        answers = self._collected.answers()
        if not answers.rows:
            log.warning("performance_not_measured", label=self.label, reason="no labelled row")
            return None
        found = measured(answers, self._judged.output, SEED)
        return found.to_json() if found.metrics else None


def _truth(labels: pa.Array, path: str, name: str) -> pa.Array:
    known = truth(labels)
    if known is None:
        wanted = "a label: a number, a word, true or false"
        raise InputTypeMismatch(path, name, str(labels.type), wanted)
    return known
