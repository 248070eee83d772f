"""Text models: what becomes of a sentence-transformers model or a transformers pipeline.

A variant of one is a folder with the whole pipeline as a graph (``model.onnx``: token ids in,
native's outputs out), its tokenizer (``tokenizer.json``, truncation included) and what fills up a
batch (``text.json``). `export` makes the float32 one, `quantize` the others; neither is imported
here, because a worker that only scores needs no torch.
"""

TEXT_FLAVORS = frozenset({"sentence_transformers", "transformers"})
"""MLflow flavors whose models read texts."""
