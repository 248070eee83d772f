"""Bound calls give what plain calls give: same rows, same order, same bits.

The device here is the host itself: the same slots, layouts and bindings as on a GPU, with copies
that are done when they return.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from scoring.models.batch import BatchSize
from scoring.models.engines import EngineOptions
from scoring.models.engines.bound import SLOTS, Bound
from scoring.models.engines.runner import Plain, runner
from scoring.models.engines.session import open_session
from scoring.models.engines.slots import ALIGNMENT, packed
from scoring.models.engines.traffic import CudaTraffic, HostTraffic
from tests.integration import models

pytestmark = pytest.mark.slow  # imports PyTorch, which alone takes seconds

Arrays = dict[str, npt.NDArray[Any]]
WIDTH = 5


class LateTraffic(HostTraffic):
    """A device on which nothing happens before somebody waits: what a GPU may do at its slowest."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most_waiting = 0

    def download(self, source: torch.Tensor, target: torch.Tensor) -> Any:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        target.fill_(255)
        return _OnDemand(self, source, target)


class _OnDemand:
    def __init__(self, traffic: LateTraffic, source: torch.Tensor, target: torch.Tensor) -> None:
        self._traffic, self._source, self._target = traffic, source, target

    def synchronize(self) -> None:
        self._target.copy_(self._source)
        self._traffic.waiting -= 1


class CrampedTraffic(HostTraffic):
    """A device with room for buffers up to a size, and a count of what it was asked for."""

    def __init__(self, most: int) -> None:
        self.most, self.settled, self.given_back = most, 0, 0

    def device(self, size: int) -> torch.Tensor:
        if size > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.host(size)

    def settle(self) -> None:
        self.settled += 1

    def give_back(self) -> None:
        self.given_back += 1


class ShrinkingTraffic(LateTraffic):
    """A device that once, at a certain upload, has no memory left for a moment."""

    def __init__(self, upload: int) -> None:
        super().__init__()
        self._left = upload

    def upload(self, source: torch.Tensor, target: torch.Tensor) -> None:
        self._left -= 1
        if self._left == 0:
            raise RuntimeError("Error in execution: Failed to allocate memory for requested buffer")
        super().upload(source, target)


class ForgetfulTraffic(HostTraffic):
    """A device that computes on what lay in its memory before: no upload arrives."""

    def upload(self, source: torch.Tensor, target: torch.Tensor) -> None:
        target.zero_()


@pytest.fixture
def session(tmp_path: Path) -> Callable[[onnx.ModelProto], onnxruntime.InferenceSession]:
    def opened(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
        onnx.save(model, tmp_path / "model.onnx")
        return open_session(tmp_path / "model.onnx", EngineOptions(device="cpu", threads=1))

    return opened


def columns(rows: int, seed: int = 1) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "matrix": rng.standard_normal((rows, WIDTH), np.float32),
        "half": rng.standard_normal((rows, 1)).astype(np.float16),
        "double": rng.standard_normal(rows),
        "count": rng.integers(-9, 9, (rows, 2, 3)),
        "small": rng.integers(0, 99, rows).astype(np.uint8),
        "flag": rng.random((rows, 1)) < 0.5,
    }


def of_every_type() -> onnx.ModelProto:
    """Each input comes back, some of them changed, in its own type and shape."""
    kinds: dict[str, tuple[int, list[Any]]] = {
        "matrix": (TensorProto.FLOAT, ["rows", WIDTH]),
        "half": (TensorProto.FLOAT16, ["rows", 1]),
        "double": (TensorProto.DOUBLE, ["rows"]),
        "count": (TensorProto.INT64, ["rows", 2, 3]),
        "small": (TensorProto.UINT8, ["rows"]),
        "flag": (TensorProto.BOOL, ["rows", 1]),
    }
    nodes = [
        helper.make_node("Softmax", ["matrix"], ["matrix out"], axis=1),
        helper.make_node("Neg", ["half"], ["half out"]),
        helper.make_node("Exp", ["double"], ["double out"]),
        helper.make_node("Neg", ["count"], ["count out"]),
        helper.make_node("Identity", ["small"], ["small out"]),
        helper.make_node("Not", ["flag"], ["flag out"]),
    ]
    return models.graph(nodes, kinds, {f"{name} out": kind for name, kind in kinds.items()})


def cutting(whole: Arrays) -> Callable[[int, int], Arrays]:
    return lambda start, stop: {name: values[start:stop] for name, values in whole.items()}


def names(found: onnxruntime.InferenceSession) -> list[str]:
    return [one.name for one in found.get_outputs()]


def assert_same(found: list[list[Any]], expected: list[list[Any]]) -> None:
    assert [len(piece) for piece in found] == [len(piece) for piece in expected]
    for piece, plain in zip(found, expected, strict=True):
        for values, wanted in zip(piece, plain, strict=True):
            assert values.dtype == wanted.dtype
            np.testing.assert_array_equal(values, wanted)


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 64 * SLOTS, 64 * (SLOTS + 4) + 7])
@pytest.mark.parametrize("traffic", [HostTraffic, LateTraffic])
def test_bound_calls_equal_plain_ones_in_every_type_and_shape(
    session: Any, rows: int, traffic: Any
) -> None:
    opened, whole = session(of_every_type()), columns(rows)
    bound = Bound(opened, names(opened), traffic())

    found = bound.calls(BatchSize(64), rows, cutting(whole))

    assert_same(found, Plain(opened, names(opened)).calls(BatchSize(64), rows, cutting(whole)))
    assert bound.why_plain == ""


def test_one_runner_serves_slabs_of_other_lengths_and_batches(session: Any) -> None:
    opened = session(of_every_type())
    bound, plain = Bound(opened, names(opened), LateTraffic()), Plain(opened, names(opened))

    for rows, batch in [(1, 64), (300, 64), (10, 64), (300, 128), (77, 5), (300, 300), (0, 8)]:
        cut = cutting(columns(rows, seed=rows))
        assert_same(
            bound.calls(BatchSize(batch), rows, cut), plain.calls(BatchSize(batch), rows, cut)
        )


def test_batches_of_changing_width_are_bound_too(session: Any) -> None:
    mean = models.graph(
        [helper.make_node("ReduceMean", ["X", "axes"], ["score"], keepdims=0)],
        {"X": (TensorProto.FLOAT, ["rows", "tokens"])},
        {"score": (TensorProto.FLOAT, ["rows"])},
        {"axes": np.array([1])},
    )
    opened, rng = session(mean), np.random.default_rng(1)
    feeds = [{"X": rng.random((8, width), np.float32)} for width in (3, 9, 2, 700, 1, 700, 5)]
    bound = Bound(opened, ["score"], LateTraffic())

    assert_same(bound.each(feeds), Plain(opened, ["score"]).each(feeds))
    assert bound.why_plain == ""


def test_only_the_wanted_outputs_are_computed_in_the_wanted_order(session: Any) -> None:
    opened, whole = session(of_every_type()), columns(50)
    wanted = ["flag out", "matrix out"]

    found = Bound(opened, wanted, HostTraffic()).calls(BatchSize(20), 50, cutting(whole))

    assert_same(found, Plain(opened, wanted).calls(BatchSize(20), 50, cutting(whole)))


def test_as_many_batches_are_under_way_as_there_are_slots(session: Any) -> None:
    opened, traffic = session(of_every_type()), LateTraffic()
    bound = Bound(opened, names(opened), traffic)

    bound.calls(BatchSize(16), 16 * 10, cutting(columns(160)))

    assert traffic.most_waiting == SLOTS
    assert traffic.waiting == 0, "everything was fetched"


def test_results_stay_when_their_slot_is_used_again(session: Any) -> None:
    opened = session(models.linear(np.eye(3, dtype=np.float32)))
    bound = Bound(opened, ["score"], HostTraffic())
    rows = np.arange(300, dtype=np.float32).reshape(100, 3)

    kept = bound.calls(BatchSize(10), 100, cutting({"X": rows}))
    bound.calls(BatchSize(10), 100, cutting({"X": rows * -1}))

    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in kept]), rows)


def test_a_batch_that_does_not_fit_is_halved_and_every_row_is_scored(session: Any) -> None:
    opened, traffic = session(models.linear(np.eye(4, dtype=np.float32))), CrampedTraffic(4_096)
    bound, batches = Bound(opened, ["score"], traffic), BatchSize(1_000)
    rows = np.random.default_rng(1).random((3_001, 4), np.float32)

    found = bound.calls(batches, len(rows), cutting({"X": rows}))

    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in found]), rows)
    assert batches.rows == 250
    assert traffic.given_back == 2, "once for each size that did not fit"
    assert bound.why_plain == ""


def test_memory_that_runs_out_later_loses_no_batch_under_way(session: Any) -> None:
    opened, traffic = session(models.linear(np.eye(4, dtype=np.float32))), ShrinkingTraffic(10)
    bound, batches = Bound(opened, ["score"], traffic), BatchSize(64)
    rows = np.random.default_rng(1).random((64 * 20, 4), np.float32)

    found = bound.calls(batches, len(rows), cutting({"X": rows}))

    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in found]), rows)
    assert batches.rows == 32
    assert bound.why_plain == ""


def test_one_row_that_does_not_fit_is_an_error(session: Any) -> None:
    opened = session(models.linear(np.eye(4, dtype=np.float32)))
    bound = Bound(opened, ["score"], CrampedTraffic(0))

    with pytest.raises(MemoryError, match="one row does not fit"):
        bound.calls(BatchSize(8), 8, cutting({"X": np.ones((8, 4), np.float32)}))


def strings() -> tuple[onnx.ModelProto, Arrays, str]:
    graph = models.graph(
        [helper.make_node("Identity", ["X"], ["score"])],
        {"X": (TensorProto.STRING, ["rows"])},
        {"score": (TensorProto.STRING, ["rows"])},
    )
    return graph, {"X": np.array(["a", "bc", "d"], object)}, "no tensor of numbers"


def sequences() -> tuple[onnx.ModelProto, Arrays, str]:
    rows = np.random.default_rng(1).random((3, 4), np.float32)
    graph = models.zipmap_classifier(rows)
    return graph, {"X": rows}, "no tensor of numbers"


def open_width() -> tuple[onnx.ModelProto, Arrays, str]:
    graph = models.graph(
        [helper.make_node("Identity", ["X"], ["score"])],
        {"X": (TensorProto.FLOAT, ["rows", "width"])},
        {"score": (TensorProto.FLOAT, ["rows", "width"])},
    )
    return graph, {"X": np.ones((3, 2), np.float32)}, "the width of score is open"


def one_value_for_all() -> tuple[onnx.ModelProto, Arrays, str]:
    graph = models.graph(
        [helper.make_node("ReduceSum", ["X"], ["score"], keepdims=0)],
        {"X": (TensorProto.FLOAT, ["rows", 2])},
        {"score": (TensorProto.FLOAT, [])},
    )
    return graph, {"X": np.ones((3, 2), np.float32)}, "does not have one value per row"


@pytest.mark.parametrize("case", [strings, sequences, open_width, one_value_for_all])
def test_what_cannot_be_bound_is_called_plainly(session: Any, case: Any) -> None:
    graph, whole, why = case()
    opened = session(graph)
    bound = Bound(opened, names(opened), HostTraffic())

    found = bound.calls(BatchSize(2), 3, cutting(whole))

    expected = Plain(opened, names(opened)).calls(BatchSize(2), 3, cutting(whole))
    assert [str(piece) for piece in found] == [str(piece) for piece in expected]
    assert why in bound.why_plain


def test_a_device_that_computes_on_other_bytes_is_found_out_by_the_first_batch(
    session: Any,
) -> None:
    opened = session(models.linear(np.eye(4, dtype=np.float32)))
    bound = Bound(opened, ["score"], ForgetfulTraffic())
    rows = np.random.default_rng(1).random((100, 4), np.float32)

    found = bound.calls(BatchSize(10), 100, cutting({"X": rows}))

    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in found]), rows)
    assert bound.why_plain == "bound calls gave other results"


def test_a_width_that_changes_although_it_was_declared_falls_back_to_plain_calls(
    session: Any,
) -> None:
    """The first batch has one row, where an output of one value per batch looks right."""
    graph = models.graph(
        [helper.make_node("ReduceSum", ["X", "axes"], ["score"], keepdims=1)],
        {"X": (TensorProto.FLOAT, ["rows", 2])},
        {"score": (TensorProto.FLOAT, ["rows", 2])},
        {"axes": np.array([0])},
    )
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "rows"
    opened = session(graph)
    bound = Bound(opened, ["score"], HostTraffic())
    bound.calls(BatchSize(8), 1, cutting({"X": np.ones((1, 2), np.float32)}))

    found = bound.calls(BatchSize(8), 8, cutting({"X": np.ones((8, 2), np.float32)}))

    np.testing.assert_array_equal(found[0][0], [[8, 8]])
    assert "failed where a plain one did not" in bound.why_plain


def test_a_row_that_the_model_refuses_raises_and_the_next_ones_are_bound_again(
    session: Any,
) -> None:
    graph = models.graph(
        [helper.make_node("Gather", ["table", "X"], ["score"])],
        {"X": (TensorProto.INT64, ["rows"])},
        {"score": (TensorProto.FLOAT, ["rows"])},
        {"table": np.arange(10, dtype=np.float32)},
    )
    opened, traffic = session(graph), LateTraffic()
    bound = Bound(opened, ["score"], traffic)
    rows = np.arange(10).repeat(4)

    with pytest.raises(Exception, match="must be within the inclusive range"):
        bound.calls(BatchSize(4), 40, cutting({"X": np.where(rows == 7, 77, rows)}))
    found = bound.calls(BatchSize(4), 40, cutting({"X": rows}))

    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in found]), rows)
    assert traffic.waiting == 0
    assert bound.why_plain == ""


def test_arrays_in_a_buffer_are_aligned_and_do_not_overlap() -> None:
    layout = packed({name: (values.dtype, values.shape) for name, values in columns(37).items()})

    ends = [0, *(region.stop for region in layout.regions)]
    assert all(region.start % ALIGNMENT == 0 for region in layout.regions)
    assert all(end <= region.start for end, region in zip(ends[:-1], layout.regions, strict=True))
    assert layout.size >= ends[-1]


def test_a_session_on_the_cpu_is_called_plainly(session: Any) -> None:
    opened = session(models.linear(np.eye(4, dtype=np.float32)))

    assert isinstance(runner(opened, ["score"]), Plain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnAGpu:
    """The same claims where copies really overlap with computation."""

    @pytest.fixture
    def opened(self, tmp_path: Path) -> onnxruntime.InferenceSession:
        rng = np.random.default_rng(1)
        onnx.save(models.linear(rng.random((WIDTH, 64), np.float32)), tmp_path / "model.onnx")
        return open_session(tmp_path / "model.onnx", EngineOptions(device="cuda", threads=1))

    def test_bound_calls_equal_plain_ones(self, opened: onnxruntime.InferenceSession) -> None:
        rows = np.random.default_rng(2).random((100_003, WIDTH), np.float32)
        bound = runner(opened, ["score"])
        assert isinstance(bound, Bound)

        found = bound.calls(BatchSize(4_096), len(rows), cutting({"X": rows}))

        plain = Plain(opened, ["score"]).calls(BatchSize(4_096), len(rows), cutting({"X": rows}))
        assert_same(found, plain)
        assert bound.why_plain == ""

    def test_host_memory_is_pinned(self) -> None:
        traffic = CudaTraffic(int(torch.cuda.Stream().cuda_stream))

        assert traffic.host(64).is_pinned()
        assert traffic.device(64).is_cuda

    def test_memory_that_runs_out_halves_the_batch(
        self, opened: onnxruntime.InferenceSession
    ) -> None:
        free, _ = torch.cuda.mem_get_info()
        taken = torch.empty(max(0, free - (1 << 30)), dtype=torch.uint8, device="cuda")
        rows = np.zeros((4_000_000, WIDTH), np.float32)
        batches = BatchSize(len(rows))

        found = runner(opened, ["score"]).calls(batches, len(rows), cutting({"X": rows}))

        del taken
        assert sum(len(piece[0]) for piece in found) == len(rows)
        assert batches.rows < len(rows)
