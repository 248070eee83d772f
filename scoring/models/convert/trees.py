"""What exporters of tree ensembles leave out: exact thresholds, and where missing values go.

A tree asks ``x <= threshold``, with a threshold in float64, and exporters round that to float32.
Decimals lie on thresholds (the middle between prices 12.34 and 12.36 is a price), so some rows
then go the other way. For values in float32 the largest float32 that is not above the threshold
asks exactly the same; for others the ensemble must keep float64, which costs ONNX Runtime 1 to 3 %
(measured: 300 trees, 20 columns, batches of 8,192).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from scoring.models.built import NotBuilt

Shape = tuple[bytes, bytes, bytes]
"""Features, left children and thresholds of a tree's nodes: what makes it that tree."""


def rounded_down(thresholds: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """The largest float32 values that are not above the thresholds."""
    exact = np.asarray(thresholds, np.float64)
    with np.errstate(over="ignore"):  # the largest float64 becomes the largest float32
        nearest = exact.astype(np.float32)
    return np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def restore_thresholds(model: onnx.ModelProto, exact: npt.NDArray[np.float64], wide: bool) -> None:
    """Put back the thresholds of an ensemble that was exported with their numbers instead.

    ``exact`` holds them by number; ``wide``: the graph takes float64 and keeps them as they are.
    Splits that ask for equality keep their values.
    """
    for node in _ensembles(model):
        attributes = {item.name: item for item in node.attribute}
        below = np.array([mode == b"BRANCH_LEQ" for mode in attributes["nodes_modes"].strings])
        values = np.array(attributes["nodes_values"].floats, np.float64)
        numbers = values[below].astype(np.int64)
        values[below] = exact[numbers] if wide else rounded_down(exact[numbers])
        attributes["nodes_values"].floats[:] = values.astype(np.float32).tolist()
        if wide:
            _widen(node, values)
    if wide:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
        _import_at_least(model, "ai.onnx.ml", 3)


def _widen(node: onnx.NodeProto, values: npt.NDArray[np.float64]) -> None:
    """Hold an ensemble's numbers in float64."""
    kept = []
    for item in node.attribute:
        if item.name == "nodes_hitrates":
            continue  # unused, and not allowed to differ in type
        if item.type == onnx.AttributeProto.FLOATS:
            wide = values if item.name == "nodes_values" else np.array(item.floats, np.float64)
            item = helper.make_attribute(
                f"{item.name}_as_tensor", numpy_helper.from_array(wide, item.name)
            )
        kept.append(item)
    del node.attribute[:]
    node.attribute.extend(kept)


def _import_at_least(model: onnx.ModelProto, domain: str, version: int) -> None:
    for item in model.opset_import:
        if item.domain == domain:
            item.version = max(item.version, version)


def _ensembles(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for node in model.graph.node:
        if node.op_type in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
            yield node


def route_missing(model: onnx.ModelProto, trees: Iterable[Any]) -> None:
    """Send missing values the way that fitted scikit-learn trees do.

    skl2onnx sends all of them right. A decision tree or forest of scikit-learn sends them where
    the rows that lacked the value went in training, or else to the larger child
    (``missing_go_to_left`` of ``sklearn.tree._tree.Tree``).

    Raises:
        NotBuilt: a tree is not found in the graph as it was fitted.
    """
    wanted: dict[Shape, tuple[int, ...]] = {}
    for shape, ways in _directions(trees):
        if wanted.setdefault(shape, ways) != ways:
            raise NotBuilt("two of its trees differ only in where they send missing values")
    if not any(any(ways) for ways in wanted.values()):
        return
    found = set()
    for node in _ensembles(model):
        found |= _rerouted(node, wanted)
    if found != wanted.keys():
        raise NotBuilt("its trees take missing values, and the exporter rebuilds them otherwise")


def _directions(trees: Iterable[Any]) -> Iterator[tuple[Shape, tuple[int, ...]]]:
    """For each tree, whether each of its nodes sends missing values to its left child."""
    for tree in trees:
        inner = tree.children_left >= 0
        shape = _shape(
            np.where(inner, tree.feature, 0),
            np.where(inner, tree.children_left, 0),
            np.where(inner, rounded_down(tree.threshold), 0),
        )
        yield shape, tuple(int(left) for left in np.where(inner, tree.missing_go_to_left, 0))


def _rerouted(node: onnx.NodeProto, wanted: dict[Shape, tuple[int, ...]]) -> set[Shape]:
    """Set the directions of an ensemble's trees; returns those that were known."""
    attributes = {item.name: item for item in node.attribute}
    ends = np.flatnonzero(np.diff(attributes["nodes_treeids"].ints)) + 1
    features = np.array(attributes["nodes_featureids"].ints)
    lefts = np.array(attributes["nodes_truenodeids"].ints)
    values = np.array(attributes["nodes_values"].floats, np.float32)
    missing = np.array(attributes["nodes_missing_value_tracks_true"].ints)
    found = set()
    for start, end in zip([0, *ends], [*ends, len(values)], strict=True):
        mine = slice(start, end)
        shape = _shape(features[mine], lefts[mine], values[mine])
        if shape in wanted:
            missing[mine] = wanted[shape]
            found.add(shape)
    attributes["nodes_missing_value_tracks_true"].ints[:] = missing.tolist()
    return found


def _shape(features: npt.ArrayLike, lefts: npt.ArrayLike, thresholds: npt.ArrayLike) -> Shape:
    return (
        np.asarray(features, np.int64).tobytes(),
        np.asarray(lefts, np.int64).tobytes(),
        np.asarray(thresholds, np.float32).tobytes(),
    )
