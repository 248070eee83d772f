"""Quantizing: what lower precision may change in a model, and what it must not.

The model is a network that says from real departures whether a flight arrives late; its graph is
written the way torch exports one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from examples.flights.prepare import NUMBERS, days, departures, late
from scoring.models.built import NotBuilt
from scoring.models.quantize import Method, dynamic, half, is_quantized, recipes, static
from scoring.models.quantize.graph import save
from scoring.models.quantize.recipes import saturates

Matrix = npt.NDArray[np.float32]
Feeds = Callable[[], Iterator[Mapping[str, Matrix]]]
Make = Callable[[Path, Feeds, Path], None]

TRAINED = 10_000
CALIBRATED = slice(TRAINED, TRAINED + 1_000)
HELD = slice(TRAINED + 1_000, TRAINED + 9_000)
METHODS = ["min-max", "percentile", pytest.param("entropy", marks=pytest.mark.slow)]
MAX_MEAN_ERROR = 0.005
MIN_AGREEMENT = 0.995

min_max = partial(static, method="min-max")


pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def without_rows(graph: Path, feeds: Feeds, made: Path) -> None:
    """Dynamic int8 in the shape of static."""
    dynamic(graph, made)


@pytest.fixture(scope="module")
def departed() -> tuple[Matrix, npt.NDArray[np.int64]]:
    """What is known of each departure of a month, standardised, and whether it arrived late."""
    dates = days(date(2013, 3, 1), date(2013, 3, 31))
    arrived = late(dates)
    table = departures(dates).filter(arrived.is_valid())
    columns = [table[name].to_numpy().astype(np.float64) for name in NUMBERS]
    columns[-1] = np.sign(columns[-1]) * np.log1p(np.abs(columns[-1]))
    rows = np.stack([(column - column.mean()) / column.std() for column in columns], axis=1)
    order = np.random.default_rng(7).permutation(len(rows))
    labels = arrived.drop_null().to_numpy(zero_copy_only=False)
    return rows[order].astype(np.float32), labels[order].astype(np.int64)


@pytest.fixture(scope="module")
def rows(departed: tuple[Matrix, Any]) -> Matrix:
    return departed[0]


@pytest.fixture(scope="module")
def held(rows: Matrix) -> Matrix:
    return rows[HELD]


@pytest.fixture(scope="module")
def fitted(departed: tuple[Matrix, npt.NDArray[np.int64]]) -> MLPClassifier:
    rows, labels = departed
    network = MLPClassifier((64, 64), max_iter=4, tol=0, n_iter_no_change=5, random_state=7)
    return network.fit(rows[:TRAINED], labels[:TRAINED])


@pytest.fixture(scope="module")
def graph(fitted: MLPClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "model.onnx"
    onnx.save(network(fitted), path)
    return path


@pytest.fixture(scope="module")
def feeds(rows: Matrix) -> Feeds:
    return batches(rows[CALIBRATED])


@pytest.fixture(scope="module")
def scores(graph: Path, held: Matrix) -> Matrix:
    """The float32 graph's own."""
    return score(graph, held)


def batches(rows: Matrix, name: str = "features", size: int = 128) -> Feeds:
    return lambda: iter({name: rows[start : start + size]} for start in range(0, len(rows), size))


def network(fitted: MLPClassifier, operator_set: int = 17) -> onnx.ModelProto:
    """The fitted network as torch writes one: Gemm with transposed weights, a flat score."""
    nodes, weights, given = [], [], "features"
    for index, (weight, bias) in enumerate(zip(fitted.coefs_, fitted.intercepts_, strict=True)):
        names = [f"{index}.weight", f"{index}.bias"]
        for name, values in zip(names, (weight.T, bias), strict=True):
            weights.append(numpy_helper.from_array(np.float32(values), name))
        nodes.append(helper.make_node("Gemm", [given, *names], [f"linear_{index}"], transB=1))
        nodes.append(helper.make_node("Relu", [f"linear_{index}"], [f"relu_{index}"]))
        given = f"relu_{index}"
    last = nodes.pop().input[0]
    weights.append(numpy_helper.from_array(np.array([-1], np.int64), "shape"))
    nodes.append(helper.make_node("Reshape", [last, "shape"], ["view"]))
    nodes.append(helper.make_node("Sigmoid", ["view"], ["score"]))
    return model(nodes, weights, ["batch", len(NUMBERS)], ["N"], operator_set)


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto],
    given: Sequence[str | int | None],
    gives: Sequence[str | int | None],
    operator_set: int = 17,
) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, gives)],
        weights,
    )
    opset = helper.make_opsetid("", operator_set)
    return helper.make_model(made, opset_imports=[opset], ir_version=8)


def score(graph: Path, rows: Matrix, batch: int = 1_000, output: str = "score") -> Matrix:
    """The score of each row by the model called directly."""
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    starts = range(0, len(rows), batch)
    return np.concatenate([session.run([output], {name: rows[n : n + batch]})[0] for n in starts])


def error(scores: Matrix, truth: Matrix) -> float:
    return float(np.abs(scores - truth).mean())


def agreement(scores: Matrix, truth: Matrix) -> float:
    return float(((scores > 0.5) == (truth > 0.5)).mean())


def fused(graph: Path, tmp_path: Path) -> list[str]:
    """The operators that ONNX Runtime really executes."""
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]


# How accurate


@pytest.mark.parametrize("method", METHODS)
def test_static_int8_stays_within_the_limits_of_a_job(
    method: Method, graph: Path, feeds: Feeds, held: Matrix, scores: Matrix, tmp_path: Path
) -> None:
    made = tmp_path / "model.onnx"
    static(graph, feeds, made, method)

    found = score(made, held)
    assert 0 < error(found, scores) <= MAX_MEAN_ERROR
    assert agreement(found, scores) >= MIN_AGREEMENT


def test_first_layers_in_float32_make_it_more_accurate(
    graph: Path, feeds: Feeds, held: Matrix, scores: Matrix, tmp_path: Path
) -> None:
    min_max(graph, feeds, tmp_path / "whole.onnx")
    static(graph, feeds, tmp_path / "later.onnx", "min-max", first_in_float=True)

    whole, later = (score(tmp_path / name, held) for name in ("whole.onnx", "later.onnx"))
    assert error(later, scores) < error(whole, scores) / 2


def test_weights_of_seven_bits_are_accurate_too(
    graph: Path, feeds: Feeds, held: Matrix, scores: Matrix, tmp_path: Path
) -> None:
    static(graph, feeds, tmp_path / "model.onnx", "min-max", seven_bits=True)

    made = onnx.load(tmp_path / "model.onnx")
    weights = [numpy_helper.to_array(item) for item in made.graph.initializer]
    assert max(int(np.abs(item).max()) for item in weights if item.dtype == np.int8) <= 64
    assert error(score(tmp_path / "model.onnx", held), scores) <= MAX_MEAN_ERROR


def test_float16_is_close_and_keeps_the_types_of_inputs_and_outputs(
    graph: Path, held: Matrix, scores: Matrix, tmp_path: Path
) -> None:
    half(graph, tmp_path / "model.onnx")

    found = score(tmp_path / "model.onnx", held)
    assert found.dtype == np.float32
    assert np.abs(found - scores).max() < 0.01
    kinds = {item.data_type for item in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert TensorProto.FLOAT16 in kinds
    assert TensorProto.FLOAT not in kinds


def test_a_score_is_not_rounded_to_eight_bits(
    graph: Path, feeds: Feeds, held: Matrix, tmp_path: Path
) -> None:
    min_max(graph, feeds, tmp_path / "model.onnx")

    assert len(np.unique(score(tmp_path / "model.onnx", held))) > len(held) / 2


# How fast, as far as the graph says


def test_every_layer_runs_in_integers_from_the_first_to_the_score(
    graph: Path, feeds: Feeds, tmp_path: Path
) -> None:
    min_max(graph, feeds, tmp_path / "model.onnx")

    operators = fused(tmp_path / "model.onnx", tmp_path)
    assert operators.count("QGemm") == 3
    assert operators.count("QuantizeLinear") == 1
    assert {"Gemm", "MatMul", "Relu", "DequantizeLinear"}.isdisjoint(operators)


def test_each_column_of_a_layer_has_a_scale_of_its_own(
    graph: Path, feeds: Feeds, tmp_path: Path
) -> None:
    min_max(graph, feeds, tmp_path / "model.onnx")

    made = onnx.load(tmp_path / "model.onnx").graph
    weights = {item.name: numpy_helper.to_array(item) for item in made.initializer}
    scales = {
        weights[node.input[0]].shape: weights[node.input[1]].shape
        for node in made.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    }
    assert {shape: scale for shape, scale in scales.items() if len(shape) == 2} == {
        (64, 4): (64,),
        (64, 64): (64,),
        (1, 64): (1,),
    }


def test_convolutions_run_in_integers(tmp_path: Path) -> None:
    numbers = np.random.default_rng(7)
    images = numbers.normal(size=(600, 1, 8, 8)).astype(np.float32)
    onnx.save(convolutions(numbers), tmp_path / "float.onnx")
    min_max(tmp_path / "float.onnx", batches(images[:300]), tmp_path / "model.onnx")

    operators = fused(tmp_path / "model.onnx", tmp_path)
    truth, found = (score(tmp_path / name, images[300:]) for name in ("float.onnx", "model.onnx"))
    assert operators.count("QLinearConv") == 2
    assert "Conv" not in operators
    assert error(found, truth) <= MAX_MEAN_ERROR
    assert np.mean(found.argmax(axis=1) == truth.argmax(axis=1)) >= 0.98


def convolutions(numbers: np.random.Generator) -> onnx.ModelProto:
    """Two convolutions, one with batch normalization, and a softmax over three classes."""

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = numbers.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(
            np.abs(values).astype(np.float32) if name == "var" else values.astype(np.float32), name
        )

    nodes = [
        helper.make_node("Conv", ["features", "first"], ["conv"], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["conv", "scale", "bias", "mean", "var"], ["norm"]),
        helper.make_node("Relu", ["norm"], ["relu"]),
        helper.make_node("Conv", ["relu", "second"], ["again"], pads=[1] * 4),
        helper.make_node("Relu", ["again"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["score"]),
    ]
    weights = [
        weight("first", 16, 1, 3, 3),
        *(weight(name, 16) for name in ("scale", "bias", "mean", "var")),
        weight("second", 16, 16, 3, 3),
        weight("head", 16, 3),
    ]
    return model(nodes, weights, [None, 1, 8, 8], [None, 3])


# What a row's score depends on


@pytest.mark.parametrize("first_in_float", [False, True])
def test_a_static_score_depends_on_its_row_alone(
    first_in_float: bool, graph: Path, feeds: Feeds, held: Matrix, tmp_path: Path
) -> None:
    made = tmp_path / "model.onnx"
    static(graph, feeds, made, "min-max", first_in_float=first_in_float)

    together = score(made, held, batch=len(held))
    for batch in (7, 256, 1_000):
        np.testing.assert_array_equal(score(made, held, batch), together)
    np.testing.assert_array_equal(score(made, held[::-1])[::-1], together)


def test_a_dynamic_score_moves_with_an_outlier_among_its_neighbours(
    graph: Path, held: Matrix, tmp_path: Path
) -> None:
    dynamic(graph, tmp_path / "model.onnx")
    outlier = np.full_like(held[:1], 50.0)

    alone = score(tmp_path / "model.onnx", held[:100])
    crowded = score(tmp_path / "model.onnx", np.concatenate([held[:100], outlier]))[:100]
    assert np.abs(crowded - alone).max() > 0.001


@pytest.mark.parametrize("make", [min_max, without_rows], ids=["static", "dynamic"])
def test_a_missing_value_gives_no_score_to_its_row_and_leaves_the_others_alone(
    make: Make, graph: Path, feeds: Feeds, held: Matrix, tmp_path: Path
) -> None:
    make(graph, feeds, tmp_path / "model.onnx")
    rows = held[:10].copy()
    rows[3, 2] = np.nan

    for path in (graph, tmp_path / "model.onnx"):
        assert np.flatnonzero(np.isnan(score(path, rows))).tolist() == [3]


def test_an_infinite_value_gives_no_score_that_looks_like_one(
    graph: Path, feeds: Feeds, held: Matrix, tmp_path: Path
) -> None:
    min_max(graph, feeds, tmp_path / "model.onnx")
    rows = held[:10].copy()
    rows[3, 2] = np.inf

    assert np.flatnonzero(np.isnan(score(tmp_path / "model.onnx", rows))).tolist() == [3]


def test_an_output_that_a_later_layer_reads_carries_missing_values_and_stays_in_integers(
    fitted: MLPClassifier, feeds: Feeds, held: Matrix, scores: Matrix, tmp_path: Path
) -> None:
    two = network(fitted)
    two.graph.output.append(helper.make_tensor_value_info("relu_1", TensorProto.FLOAT, ["K", 64]))
    onnx.save(two, tmp_path / "two.onnx")
    min_max(tmp_path / "two.onnx", feeds, tmp_path / "model.onnx")
    rows = held[:10].copy()
    rows[3, 2] = np.nan

    hidden = score(tmp_path / "model.onnx", rows, output="relu_1")
    assert np.flatnonzero(np.isnan(hidden).any(axis=1)).tolist() == [3]
    assert fused(tmp_path / "model.onnx", tmp_path).count("QGemm") == 3
    assert error(score(tmp_path / "model.onnx", held), scores) <= MAX_MEAN_ERROR


# Pipelines of scikit-learn


@pytest.fixture(scope="module")
def pipeline(
    departed: tuple[Matrix, npt.NDArray[np.int64]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Missing values filled in, columns of very different size, labels beside probabilities."""
    rows, labels = departed
    network = MLPClassifier((64, 64), max_iter=3, tol=0, n_iter_no_change=5, random_state=7)
    steps = make_pipeline(SimpleImputer(), StandardScaler(), network)
    steps.fit(uneven(rows[:TRAINED]), labels[:TRAINED])
    path = tmp_path_factory.mktemp("pipeline") / "model.onnx"
    onnx.save(to_onnx(steps, rows[:1], options={"zipmap": False}, target_opset=17), path)
    return path


def uneven(rows: Matrix) -> Matrix:
    return (rows * np.array([1, 30, 1_000, 0.01])).astype(np.float32)


def test_a_pipeline_is_quantized_behind_its_scaling(
    pipeline: Path, rows: Matrix, held: Matrix, tmp_path: Path
) -> None:
    min_max(pipeline, batches(uneven(rows[CALIBRATED]), "X"), tmp_path / "model.onnx")

    given = uneven(held)
    truth, found = (
        score(path, given, output="probabilities") for path in (pipeline, tmp_path / "model.onnx")
    )
    assert fused(tmp_path / "model.onnx", tmp_path).count("QGemm") == 3
    assert error(found, truth) <= MAX_MEAN_ERROR
    assert agreement(found, truth) >= MIN_AGREEMENT


@pytest.mark.parametrize("make", [min_max, without_rows], ids=["static", "dynamic"])
def test_a_value_that_the_pipeline_fills_in_keeps_its_score(
    make: Make, pipeline: Path, rows: Matrix, held: Matrix, tmp_path: Path
) -> None:
    make(pipeline, batches(uneven(rows[CALIBRATED]), "X"), tmp_path / "model.onnx")
    given = uneven(held[:100])
    given[3, 2] = np.nan

    truth, found = (
        score(path, given, output="probabilities") for path in (pipeline, tmp_path / "model.onnx")
    )
    assert np.isfinite(found).all()
    assert np.abs(found - truth).max() < 0.1


# Calibration rows


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_calibration_rows_that_are_not_finite_do_no_harm(
    value: float,
    method: Method,
    graph: Path,
    rows: Matrix,
    held: Matrix,
    scores: Matrix,
    tmp_path: Path,
) -> None:
    given = rows[CALIBRATED].copy()
    given[::50, 1] = value
    static(graph, batches(given), tmp_path / "model.onnx", method)

    assert error(score(tmp_path / "model.onnx", held), scores) <= MAX_MEAN_ERROR


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (np.zeros((0, 4), np.float32), "there are no calibration rows"),
        (np.full((300, 4), np.nan, np.float32), "finite on no calibration row"),
    ],
    ids=["none", "nothing but missing values"],
)
def test_static_needs_rows_to_calibrate_on(
    given: Matrix, why: str, graph: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotBuilt, match=why):
        min_max(graph, batches(given), tmp_path / "model.onnx")


def test_a_later_batch_of_much_larger_values_needs_no_more_memory(
    graph: Path, rows: Matrix, tmp_path: Path
) -> None:
    given = rows[CALIBRATED].copy()
    given[:500] *= 1e-6
    static(graph, batches(given), tmp_path / "model.onnx", "percentile")

    assert is_quantized(tmp_path / "model.onnx")


def test_the_same_rows_give_the_same_bytes(graph: Path, feeds: Feeds, tmp_path: Path) -> None:
    for name in ("one.onnx", "two.onnx"):
        min_max(graph, feeds, tmp_path / name)

    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


# Graphs as they come


def test_a_graph_of_an_old_operator_set_is_brought_up_to_date(
    fitted: MLPClassifier, feeds: Feeds, held: Matrix, scores: Matrix, tmp_path: Path
) -> None:
    onnx.save(network(fitted, operator_set=11), tmp_path / "old.onnx")
    min_max(tmp_path / "old.onnx", feeds, tmp_path / "model.onnx")

    assert error(score(tmp_path / "model.onnx", held), scores) <= MAX_MEAN_ERROR


def test_an_operator_set_that_cannot_be_converted_is_said(
    fitted: MLPClassifier, feeds: Feeds, tmp_path: Path
) -> None:
    old = network(fitted, operator_set=11)
    old.graph.node[-1].op_type = "Sigmoidal"
    onnx.save(old, tmp_path / "old.onnx")

    with pytest.raises(NotBuilt, match="operator set 11, and cannot be brought to 13"):
        min_max(tmp_path / "old.onnx", feeds, tmp_path / "model.onnx")


def test_weights_that_a_caller_could_replace_are_quantized(
    fitted: MLPClassifier, feeds: Feeds, held: Matrix, scores: Matrix, tmp_path: Path
) -> None:
    old = network(fitted)
    old.ir_version = 3
    for weight in old.graph.initializer:
        old.graph.input.append(
            helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        )
    onnx.save(old, tmp_path / "old.onnx")

    for make in (min_max, without_rows):
        make(tmp_path / "old.onnx", feeds, tmp_path / "model.onnx")
        made = onnx.load(tmp_path / "model.onnx").graph
        assert [item.name for item in made.input] == ["features"]
        assert error(score(tmp_path / "model.onnx", held), scores) <= MAX_MEAN_ERROR


def test_weights_in_a_file_of_their_own_come_into_the_model(
    fitted: MLPClassifier, feeds: Feeds, held: Matrix, scores: Matrix, tmp_path: Path
) -> None:
    (tmp_path / "native").mkdir()
    (tmp_path / "made").mkdir()
    external = tmp_path / "native" / "model.onnx"
    onnx.save(
        network(fitted), external, save_as_external_data=True, location="w.bin", size_threshold=64
    )
    min_max(external, feeds, tmp_path / "made" / "model.onnx")
    half(external, tmp_path / "made" / "half.onnx")

    assert {path.name for path in (tmp_path / "made").iterdir()} == {"model.onnx", "half.onnx"}
    assert {path.name for path in (tmp_path / "native").iterdir()} == {"model.onnx", "w.bin"}
    assert error(score(tmp_path / "made" / "model.onnx", held), scores) <= MAX_MEAN_ERROR


def test_weights_too_large_for_one_file_lie_beside_it(
    fitted: MLPClassifier, held: Matrix, scores: Matrix, tmp_path: Path
) -> None:
    for _ in range(2):
        save(network(fitted), tmp_path / "model.onnx", largest=1_000)

    weights = sum(weight.nbytes for weight in (*fitted.coefs_, *fitted.intercepts_)) // 2
    assert (tmp_path / "model.onnx.data").stat().st_size < 2 * weights
    np.testing.assert_array_equal(score(tmp_path / "model.onnx", held), scores)


# What there is nothing to do for


def test_trees_are_not_quantized(
    departed: tuple[Matrix, npt.NDArray[np.int64]], feeds: Feeds, tmp_path: Path
) -> None:
    rows, labels = departed
    trees = DecisionTreeClassifier(max_depth=3).fit(rows[:500], labels[:500])
    onnx.save(to_onnx(trees, rows[:1], options={"zipmap": False}), tmp_path / "trees.onnx")

    for recipe in (*recipes("cpu"), *recipes("cuda")):
        with pytest.raises(NotBuilt, match=r"no layer with constant weights .* TreeEnsemble"):
            recipe.make(tmp_path / "trees.onnx", feeds, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_model_of_one_layer_has_none_left_beside_its_first(
    rows: Matrix, feeds: Feeds, tmp_path: Path
) -> None:
    weight = numpy_helper.from_array(np.ones((4, 1), np.float32), "weight")
    nodes = [helper.make_node("MatMul", ["features", "weight"], ["score"])]
    onnx.save(model(nodes, [weight], ["N", 4], ["M", 1]), tmp_path / "linear.onnx")

    with pytest.raises(NotBuilt, match="all its layers read the inputs"):
        static(tmp_path / "linear.onnx", feeds, tmp_path / "m.onnx", "min-max", first_in_float=True)


def test_a_graph_that_cannot_be_read_is_said_in_one_line(feeds: Feeds, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a graph\nat all")

    with pytest.raises(NotBuilt) as raised:
        min_max(tmp_path / "broken.onnx", feeds, tmp_path / "model.onnx")
    assert "\n" not in str(raised.value)


def test_the_tools_leave_standard_output_and_the_model_s_folder_alone(
    graph: Path, feeds: Feeds, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = graph.read_bytes()
    static(graph, feeds, tmp_path / "model.onnx", "percentile")

    assert capfd.readouterr() == ("", "")
    assert list(graph.parent.iterdir()) == [graph]
    assert graph.read_bytes() == before


# What is quantized already


def test_a_graph_that_was_trained_to_be_quantized_is_recognised(
    fitted: MLPClassifier, tmp_path: Path
) -> None:
    trained = network(fitted)
    for name, kind in (("QuantizeLinear", ["linear_0", "s", "z"]), ("DequantizeLinear", [])):
        trained.graph.node.append(
            helper.make_node(name, kind or ["QuantizeLinear", "s", "z"], [name])
        )
    onnx.save(trained, tmp_path / "trained.onnx")

    assert is_quantized(tmp_path / "trained.onnx")


def test_a_quantized_graph_is_told_from_one_that_is_not(
    graph: Path, feeds: Feeds, tmp_path: Path
) -> None:
    min_max(graph, feeds, tmp_path / "static.onnx")
    dynamic(graph, tmp_path / "dynamic.onnx")
    half(graph, tmp_path / "half.onnx")

    found = {path.stem: is_quantized(path) for path in (graph, *tmp_path.glob("*.onnx"))}
    assert found == {"model": False, "half": False, "static": True, "dynamic": True}


# Recipes


def test_a_cpu_is_offered_int8_and_a_gpu_float16() -> None:
    assert {recipe.variant for recipe in recipes("cpu")} == {"int8"}
    assert {recipe.variant for recipe in recipes("cuda")} == {"fp16"}
    assert len({recipe.name for recipe in recipes("cpu")}) == len(recipes("cpu"))


@pytest.mark.slow
def test_every_recipe_makes_a_model(graph: Path, feeds: Feeds, tmp_path: Path) -> None:
    for recipe in (*recipes("cpu", seven_bits=True), *recipes("cuda")):
        recipe.make(graph, feeds, tmp_path / f"{recipe.name}.onnx")
        onnx.checker.check_model(tmp_path / f"{recipe.name}.onnx")

    assert len(list(tmp_path.iterdir())) == len(recipes("cpu")) + len(recipes("cuda"))


def test_the_name_of_a_recipe_says_how_many_bits_the_weights_have() -> None:
    assert all("7-bit" in recipe.name for recipe in recipes("cpu", seven_bits=True))
    assert not any("7-bit" in recipe.name for recipe in recipes("cpu", seven_bits=False))


@pytest.mark.parametrize(
    ("flags", "machine", "expected"),
    [
        ("fma avx2 avx512f avx512_vnni", "x86_64", False),
        ("fma avx2 avx_vnni", "x86_64", False),
        ("fma avx2 avx512f", "x86_64", True),
        ("asimd asimddp", "aarch64", False),
    ],
)
def test_a_cpu_without_wide_sums_gets_weights_of_seven_bits(
    flags: str, machine: str, expected: bool, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")

    assert saturates(tmp_path / "cpuinfo", machine) is expected


def test_a_cpu_that_does_not_say_what_it_can_gets_weights_of_seven_bits(tmp_path: Path) -> None:
    assert saturates(tmp_path / "missing", "x86_64")
