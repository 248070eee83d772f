"""Quantize: a float32 ONNX graph in a lower precision, by onnxruntime's own tools.

Four ways, each a module: `static` (int8, ranges from calibration rows), `dynamic` (int8, ranges
from each batch), `half` (float16), and the order in which `recipes` tries them. Invariant: every
graph that is written has been loaded by ONNX Runtime, takes and gives the types of the original,
keeps everything after its last layer in float32 (a score has not just 256 values), and gives NaN
for a row in which the original's layers would have met one.
"""

from scoring.models.quantize.dynamic_int8 import dynamic
from scoring.models.quantize.float16 import half
from scoring.models.quantize.graph import is_quantized
from scoring.models.quantize.ranges import Feeds, Method
from scoring.models.quantize.recipes import Recipe, recipes
from scoring.models.quantize.static_int8 import static

__all__ = ["Feeds", "Method", "Recipe", "dynamic", "half", "is_quantized", "recipes", "static"]
