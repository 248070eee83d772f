"""A trial of the GPU: the smallest graph that needs CUDA's libraries, opened and run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scoring.errors import DeviceUnavailable
from scoring.models.engines import EngineOptions
from scoring.models.engines.session import open_session


def why_cuda_fails() -> str:
    """What keeps a graph from running on the GPU; empty if it runs and is right."""
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        onnx.save(_identity(), graph)
        try:
            session = open_session(graph, EngineOptions(device="cuda", threads=1))
            rows = np.eye(4, dtype=np.float32)
            (found,) = session.run(None, {"rows": rows})
        except DeviceUnavailable as error:
            return error.found
        except Exception as error:
            return f"a graph that was opened on it failed: {error}"
    return "" if np.array_equal(found, rows) else "it multiplies wrongly"


def _identity() -> onnx.ModelProto:
    kind = TensorProto.FLOAT
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["rows", "one"], ["same"])],
            "trial",
            [helper.make_tensor_value_info("rows", kind, ["row", 4])],
            [helper.make_tensor_value_info("same", kind, ["row", 4])],
            [numpy_helper.from_array(np.eye(4, dtype=np.float32), "one")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
