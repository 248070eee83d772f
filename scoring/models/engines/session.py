"""ONNX Runtime sessions: which provider, how many threads.

Invariant: the first execution provider is the device that was asked for, or opening fails; and it
stays that. ONNX Runtime by itself opens a session on the CPU when CUDA does not load, and moves
one there when a call fails: both are switched off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from scoring import telemetry
from scoring.devices import device_name, gpus
from scoring.errors import DeviceUnavailable
from scoring.models.batch import ran_out_of_memory
from scoring.models.engines import EngineOptions
from scoring.models.engines.libraries import (
    load_cuda,
    load_tensorrt,
    tensorrt_version,
    why_not_cuda,
)

log = telemetry.logger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
CUDA_OPTIONS = {
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv_algo_search": "HEURISTIC",
    "do_copy_in_default_stream": "1",
    "use_tf32": "0",
}
"""Memory grows by what is asked for, since the runner's buffers and other engines need some too.
The convolution algorithm is looked up, not timed, so that every worker takes the same and a retried
chunk gets the same scores. TF32 is off: a variant that is called fp32 computes in float32, and the
gate's limits on it mean what they say."""
RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"


def open_session(graph: Path, options: EngineOptions) -> onnxruntime.InferenceSession:
    """A session for ``graph``.

    Raises:
        DeviceUnavailable: CUDA was asked for and is not what would run; it says what is missing.
    """
    if options.device == "cpu" or (options.device == "auto" and not has_gpu()):
        return _opened(graph, options, [CPU])
    load_cuda()
    stream = _compute_stream()
    session = _with_tensorrt(graph, options, stream) if options.tensorrt else None
    if session is None:
        session = _with_cuda(graph, options, stream)
    _report_placement(session)
    return session


def device_of(session: onnxruntime.InferenceSession) -> str:
    """``cpu`` or ``cuda``: what a session runs on."""
    return "cpu" if session.get_providers()[0] == CPU else "cuda"


def runtime_of(session: onnxruntime.InferenceSession) -> str:
    """Runtime, version and provider, for the manifest."""
    provider = session.get_providers()[0].removesuffix("ExecutionProvider")
    return f"onnxruntime {onnxruntime.__version__} {provider}"


def has_gpu() -> bool:
    """Whether this process may use a GPU."""
    return bool(gpus())


def cuda_options(stream: int) -> dict[str, str]:
    """Options of the CUDA provider; ``stream`` is the address of a CUDA stream, 0 for its own."""
    return CUDA_OPTIONS | _on_stream(stream)


def compute_stream_of(session: onnxruntime.InferenceSession) -> int:
    """The address of the CUDA stream that was given to a session; 0 if none was."""
    options = session.get_provider_options().get(CUDA, {})
    return int(options.get("user_compute_stream") or 0)


def operators_by_provider(session: onnxruntime.InferenceSession) -> dict[str, Counter[str]]:
    """Which operators of the graph each provider runs, and how many of each."""
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        counted = found.setdefault(part.ep_name, Counter())
        counted.update(node.op_type for node in part.get_nodes())
    return found


def _with_cuda(graph: Path, options: EngineOptions, stream: int) -> onnxruntime.InferenceSession:
    """A session on CUDA; on the CPU if CUDA does not work and the job allows that."""
    try:
        session = _opened(graph, options, [(CUDA, cuda_options(stream)), CPU])
        why = "" if session.get_providers()[0] == CUDA else why_not_cuda()
    except Exception as error:
        if not _is_fault_of_cuda(error):
            raise
        session, why = None, _first_line(error)
    if not why:
        return session
    if options.device == "cuda":
        raise DeviceUnavailable("cuda", f"the CPU: {why}")
    log.warning("gpu_not_used", why=why)
    return session or _opened(graph, options, [CPU])


def _with_tensorrt(
    graph: Path, options: EngineOptions, stream: int
) -> onnxruntime.InferenceSession | None:
    """A session on TensorRT; ``None``, with the reason in the log, if it does not work here."""
    missing = load_tensorrt()
    if missing:
        log.warning("tensorrt_not_used", why=f"missing: {', '.join(missing)}")
        return None
    from scoring.models.engines import tensorrt

    try:
        chosen = tensorrt.provider_options(graph, options, tensorrt_version(), device_name("cuda"))
        chosen |= _on_stream(stream)
        with tensorrt.one_compiles(chosen):
            providers = [(TENSORRT, chosen), (CUDA, cuda_options(stream)), CPU]
            session = _opened(graph, options, providers)
    except Exception as error:  # whatever it is, CUDA does the work
        log.warning("tensorrt_not_used", why=_first_line(error))
        return None
    if session.get_providers()[0] != TENSORRT:
        log.warning("tensorrt_not_used", why="ONNX Runtime did not say why")
        return None
    return session


def _opened(
    graph: Path, options: EngineOptions, providers: Sequence[Any]
) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    settings.add_session_config_entry(RECORD_PLACEMENT, "1")
    return onnxruntime.InferenceSession(
        str(graph), settings, providers=providers, enable_fallback=0
    )


def _compute_stream() -> int:
    """A CUDA stream that copies can be ordered against; 0 without a torch that has CUDA.

    PyTorch owns it, never destroys it, and is loaded only where there is a GPU to run on.
    """
    if not has_gpu():
        return 0
    import torch

    if not torch.cuda.is_available():
        log.warning("copies_not_overlapped", why=f"torch {torch.__version__} has no CUDA here")
        return 0
    return int(torch.cuda.Stream().cuda_stream)


def _report_placement(session: onnxruntime.InferenceSession) -> None:
    """Say which operators the GPU has no kernel for."""
    if device_of(session) == "cpu":
        return
    placed = operators_by_provider(session)
    elsewhere = placed.pop(CPU, Counter())
    if elsewhere:
        tell = log.info if placed else log.warning
        tell("operators_on_cpu", all=not placed, operators=dict(elsewhere))


def _on_stream(stream: int) -> dict[str, str]:
    return {"user_compute_stream": str(stream)} if stream else {}


def _is_fault_of_cuda(error: Exception) -> bool:
    said = str(error).lower()
    return not ran_out_of_memory(error) and ("cuda failure" in said or "cuda error" in said)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
