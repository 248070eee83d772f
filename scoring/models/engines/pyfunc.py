"""Any MLflow flavor through its Python function, on pandas frames (or arrays, for tensors)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from scoring.errors import DeviceUnavailable
from scoring.models import outputs
from scoring.models.batch import FRAME_ROWS
from scoring.models.engines import EngineOptions
from scoring.models.inputs import array, matrix
from scoring.models.signature import Field, ModelFiles


class PyfuncEngine:
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

    @property
    def name(self) -> str:
        import mlflow

        return f"mlflow {mlflow.__version__} {self._flavor}"

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def slab_rows(self) -> int:
        return FRAME_ROWS

    def accepts_null(self, feature: Field) -> bool:
        return not pa.types.is_integer(feature.type)  # pandas as MLflow passes it has no such value

    def predict(self, slab: pa.RecordBatch) -> dict[str, pa.Array]:
        raw = outputs.from_python(self._loaded.predict(self._given(slab)))
        names = outputs.names([name for name, _ in raw], self._signature.outputs, self._model)
        found = {
            name: outputs.to_arrow(raw[index][1], self._model) for index, name in names.items()
        }
        return outputs.checked(found, slab.num_rows, self._model)

    def empty(self) -> dict[str, pa.Array]:
        return outputs.empty(self._signature.outputs)

    def _given(self, slab: pa.RecordBatch) -> Any:
        """The slab in the form that MLflow checks against the signature."""
        if not self._signature.tensors:
            return frame(slab)
        if len(self._signature.inputs) == 1 and len(self.features) > 1:
            columns = [array(column) for column in slab.columns]
            tensor = matrix(columns, self.features[0].type.to_pandas_dtype())
            name = self._signature.inputs[0].name
            return tensor if name is None else {name: tensor}
        tensors = {}
        for field, given in zip(self._signature.inputs, self.features, strict=True):
            values = array(slab.column(given.name))
            if field.shape is not None and len(field.shape) > values.ndim:
                values = values.reshape(-1, *[1] * (len(field.shape) - values.ndim))
            tensors[field.name] = values
        return tensors.get(None, tensors)


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
