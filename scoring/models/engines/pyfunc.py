"""Any MLflow flavor through its Python function, on pandas frames (or arrays, for tensors)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from scoring.errors import DeviceUnavailable, ModelUnsupported
from scoring.models import outputs
from scoring.models.batch import FRAME_ROWS, Batched, BatchSize
from scoring.models.engines import EngineOptions
from scoring.models.inputs import array, matrix
from scoring.models.signature import Field, ModelFiles
from scoring.models.text import TEXT_FLAVORS


@dataclass(frozen=True, slots=True)
class Given:
    """A slab in the form that MLflow checks against the signature."""

    inputs: Any
    """A frame, an array or arrays by name."""
    rows: int

    def cut(self, start: int, stop: int) -> Any:
        """Some rows, of the model's own: it may well work in place, and be called again."""
        if isinstance(self.inputs, dict):
            return {name: values[start:stop].copy() for name, values in self.inputs.items()}
        return self.inputs[start:stop].copy()


class PyfuncEngine(Batched):
    """A model loaded by ``mlflow.pyfunc``."""

    def __init__(self, files: ModelFiles, needed: Sequence[Field], options: EngineOptions) -> None:
        if options.device == "cuda":
            raise DeviceUnavailable("cuda", f"a {files.flavor} model, which runs on the CPU")
        import mlflow.pyfunc

        self._model = files.model
        self._flavor = files.flavor
        self._signature = files.signature
        self.features = tuple(needed)
        self._loaded = mlflow.pyfunc.load_model(str(files.folder))
        promised = outputs.empty(files.signature.outputs) if files.signature.outputs else {}
        self._types = {name: values.type for name, values in promised.items()}
        self._usual: dict[str, pa.DataType] = {}
        self._names: tuple[str, ...] = ()
        self._batches = BatchSize(options.batch_rows or FRAME_ROWS)

    @property
    def name(self) -> str:
        import mlflow

        return f"mlflow {mlflow.__version__} {self._flavor}"

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def slab_rows(self) -> int:
        return self._batches.rows

    def accepts_null(self, feature: Field) -> bool:
        return not pa.types.is_integer(feature.type)  # pandas as MLflow passes it has no such value

    def prepare(self, rows: pa.RecordBatch) -> Given:
        return Given(self._given(rows), rows.num_rows)

    def predict(self, prepared: Given) -> dict[str, pa.Array]:
        pieces = self._batches.calls(
            prepared.rows,
            lambda start, stop: self._call(prepared.cut(start, stop), stop - start),
        )
        if len(pieces) == 1:
            return pieces[0]
        return {name: pa.concat_arrays([piece[name] for piece in pieces]) for name in pieces[0]}

    def _call(self, inputs: Any, rows: int) -> dict[str, pa.Array]:
        promised = self._signature.outputs
        raw = outputs.from_python(self._loaded.predict(inputs), promised)
        names = outputs.names([name for name, _ in raw], promised, self._model)
        found = {
            name: self._settled(name, outputs.to_arrow(raw[index][1], self._model))
            for index, name in names.items()
        }
        return outputs.checked(self._in_order(found), rows, self._model)

    def _in_order(self, found: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """The outputs of one batch as every batch has them."""
        if not found:
            raise ModelUnsupported(self._model, "it returned a table without a column")
        self._names = self._names or tuple(found)
        if set(found) != set(self._names):
            raise ModelUnsupported(
                self._model,
                f"its outputs were {', '.join(self._names)} in one batch and are "
                f"{', '.join(found)} in the next: return the same columns always",
            )
        return {name: found[name] for name in self._names}

    def _settled(self, name: str, values: pa.Array) -> pa.Array:
        """The output in the type that it has in every batch, so that the parts fit together."""
        values = outputs.settled(values, self._types.get(name))
        if pa.types.is_null(values.type):
            raise ModelUnsupported(
                self._model,
                f"its output {name} is null in a whole batch and its signature does not say "
                "which type it has: log it with the outputs in its signature",
            )
        usual = self._usual.setdefault(name, values.type)
        if not values.type.equals(usual):
            raise ModelUnsupported(
                self._model,
                f"its output {name} was {usual} in one batch and is {values.type} in the next: "
                "return one type always",
            )
        self._types[name] = usual
        return values

    def empty(self) -> dict[str, pa.Array]:
        if self._reads_text:  # their declared outputs do not say how wide an embedding is
            one = self.prepare(pa.record_batch({str(self.features[0].name): ["a text"]}))
            return {name: values.slice(0, 0) for name, values in self.predict(one).items()}
        return outputs.empty(self._signature.outputs)

    @property
    def _reads_text(self) -> bool:
        only = len(self.features) == 1 and pa.types.is_string(self.features[0].type)
        return only and self._flavor in TEXT_FLAVORS

    def _given(self, slab: pa.RecordBatch) -> Any:
        """The slab in the form that MLflow checks against the signature."""
        if self._reads_text:
            # MLflow looks for a column of that name where the signature has none; neither of
            # these flavors can be given a null, and their variants take it for an empty text.
            name = self._signature.inputs[0].name or "text"
            return frame(pa.record_batch({name: pc.fill_null(slab.column(0), "")}))
        if not self._signature.tensors:
            return frame(slab)
        if len(self._signature.inputs) == 1 and len(self.features) > 1:
            columns = [array(column) for column in slab.columns]
            stacked = matrix(columns, self.features[0].type.to_pandas_dtype())
            given = {self._signature.inputs[0].name: stacked}
        else:
            names = [field.name for field in self._signature.inputs]
            given = dict(zip(names, [array(column) for column in slab.columns], strict=True))
        tensors = {
            field.name: _shaped(given[field.name], field.shape) for field in self._signature.inputs
        }
        return tensors.get(None, tensors)


def _shaped(values: Any, shape: tuple[int, ...] | None) -> Any:
    """A row's values in the shape that the signature gives a row."""
    if shape is not None and len(shape) != values.ndim:
        return values.reshape(len(values), *shape[1:])
    return values


def frame(slab: pa.RecordBatch) -> Any:
    """A pandas frame with the types that MLflow's schema check expects."""
    columns = []
    for column in slab.columns:
        if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
            columns.append(column.cast(pa.list_(column.type.value_type)))
        else:
            columns.append(column)
    table = pa.table(columns, names=slab.schema.names)
    return table.to_pandas(date_as_object=False, self_destruct=False)
