"""Ranges: between which values each activation of a graph lies, found on calibration rows.

The onnxruntime calibrators do the work, fed batch by batch so that memory holds one batch of
activations. Two things they lack: their entropy search is given as many bins as quantized levels
unless told otherwise, and then returns the minimum and maximum; and their histograms grow without
bound when a later batch has larger values than the first, so each is given its ends beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import (
    HistogramCollector,
    TensorsData,
    create_calibrator,
    save_tensors_data,
)

from scoring.models.built import NotBuilt

Feeds = Callable[[], Iterator[Mapping[str, npt.NDArray[Any]]]]
"""A fresh iterator over batches of calibration rows, each the graph's inputs by name."""
Method = Literal["min-max", "percentile", "entropy"]

METHODS: Mapping[Method, CalibrationMethod] = {
    "min-max": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
PERCENTILE = 99.95
"""Percent of an activation's values within its range: of 99.5 to 99.999 the most accurate on
tabular networks."""
BINS = 1024
"""Of a histogram."""
LEVELS = 128
"""To which the entropy search reduces a histogram, as TensorRT does for eight bits and a sign."""
ENTROPY_TENSORS = 64
"""The entropy search takes a fifth of a second per tensor, in Python."""


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Feeds in the form that a calibrator reads."""

    def __init__(self, feeds: Iterator[Mapping[str, npt.NDArray[Any]]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def find_ranges(
    graph: Path, operators: Collection[str], feeds: Feeds, method: Method
) -> TensorsData:
    """The ranges of everything that goes into or out of these operators.

    Rows with a missing or infinite value are left out if with them a range is not finite.

    Raises:
        NotBuilt: there are no rows, or no finite values.
    """
    if next(feeds(), None) is None:
        raise NotBuilt("there are no calibration rows")
    for given in (feeds, _complete_rows(feeds)):
        found = _min_max(graph, operators, given)
        if found is not None and _finite(found):
            if method == "min-max":
                return found
            return _narrowed(graph, operators, given, method, found)
    raise NotBuilt("its activations are finite on no calibration row")


def write_ranges(ranges: TensorsData, path: Path) -> None:
    """Keep ranges where ``quantize_static`` looks for them."""
    save_tensors_data(ranges, path)


def _min_max(graph: Path, operators: Collection[str], feeds: Feeds) -> TensorsData | None:
    calibrator = _calibrator(graph, operators, "min-max")
    for feed in feeds():
        calibrator.collect_data(_Batches(iter([feed])))
    return calibrator.compute_data()


def _narrowed(
    graph: Path, operators: Collection[str], feeds: Feeds, method: Method, ends: TensorsData
) -> TensorsData:
    """Ranges without the outermost values, by histograms between known ends."""
    if method == "entropy" and len(ends.data) > ENTROPY_TENSORS:
        raise NotBuilt(
            f"the entropy search over {len(ends.data)} activations would take minutes; it is made "
            f"for up to {ENTROPY_TENSORS}"
        )
    calibrator = _calibrator(graph, operators, method)
    calibrator.collector = HistogramCollector(
        method=calibrator.method,
        symmetric=False,
        num_bins=BINS,
        num_quantized_bins=LEVELS,
        percentile=PERCENTILE,
        scenario="same",
    )
    calibrator.collector.collect(
        {name: np.ravel([item.lowest, item.highest]) for name, item in ends.items()}
    )
    for feed in feeds():
        calibrator.collect_data(_Batches(iter([feed])))
    return calibrator.compute_data()


def _calibrator(graph: Path, operators: Collection[str], method: Method) -> Any:
    return create_calibrator(
        graph,
        sorted(operators),
        str(graph.with_name(f"{method}.onnx")),
        METHODS[method],
        use_external_data_format=graph.with_name(f"{graph.name}.data").exists(),
    )


def _finite(ranges: TensorsData) -> bool:
    ends = [np.ravel([item.lowest, item.highest]) for item in ranges.values()]
    return all(bool(np.isfinite(pair).all()) for pair in ends)


def _complete_rows(feeds: Feeds) -> Feeds:
    """The feeds without the rows that have a NaN or infinite value in any input."""

    def complete() -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        for feed in feeds():
            keep = np.ones(len(next(iter(feed.values()))), bool)
            for values in feed.values():
                if np.issubdtype(values.dtype, np.floating):
                    keep &= np.isfinite(values).reshape(len(values), -1).all(axis=1)
            if keep.any():
                yield {name: values[keep] for name, values in feed.items()}

    return complete
