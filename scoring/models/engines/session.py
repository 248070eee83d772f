"""ONNX Runtime sessions: which provider, how many threads.

Invariant: the first execution provider is the device that was asked for, or opening fails.
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from scoring.errors import DeviceUnavailable
from scoring.models.engines import EngineOptions

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def open_session(graph: Path, options: EngineOptions) -> onnxruntime.InferenceSession:
    """A session for ``graph``.

    Raises:
        DeviceUnavailable: CUDA was asked for and is not what would run.
    """
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    providers = [CPU]
    if options.device == "cuda" or (options.device == "auto" and has_gpu()):
        onnxruntime.preload_dlls()
        providers.insert(0, CUDA)
    session = onnxruntime.InferenceSession(str(graph), settings, providers=providers)
    first = session.get_providers()[0]
    if options.device == "cuda" and first != CUDA:
        raise DeviceUnavailable("cuda", first)
    return session


def device_of(session: onnxruntime.InferenceSession) -> str:
    """``cpu`` or ``cuda``: what a session runs on."""
    return "cpu" if session.get_providers()[0] == CPU else "cuda"


def has_gpu() -> bool:
    """Whether an NVIDIA driver is here."""
    return Path("/dev/nvidiactl").exists()
