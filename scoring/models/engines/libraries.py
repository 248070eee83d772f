"""The shared libraries that CUDA and TensorRT need: loaded from where pip puts them, or missing.

ONNX Runtime lists both as available providers on every machine, and opens a session on the CPU
when their libraries do not load; so what is missing is found here, by loading it.
"""

from __future__ import annotations

import ctypes
import io
import re
from contextlib import redirect_stdout
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import onnxruntime

from scoring.devices import gpus, has_driver, missing_gpu

DRIVER, CUDNN = "libcuda.so.1", "libcudnn.so.9"
PROVIDERS = Path(onnxruntime.__file__).parent / "capi"
CUDA_PROVIDER = "libonnxruntime_providers_cuda.so"
TENSORRT_PROVIDER = "libonnxruntime_providers_tensorrt.so"
TENSORRT_PACKAGE = "tensorrt_libs"
"""What the wheels of TensorRT call the package that holds its libraries."""

_TENSORRT = re.compile(rb"libnv(?:infer|onnxparser)\.so\.\d+")
_FAILED = re.compile(r"^Failed to load (\S+?):", re.MULTILINE)


def built_for_cuda() -> bool:
    """Whether the installed ONNX Runtime has CUDA in it at all."""
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@cache
def load_cuda() -> tuple[str, ...]:
    """Load CUDA's libraries for ONNX Runtime; the names of those that are missing.

    The driver's own is looked for last: without it nothing runs, but the others are not needed.
    """
    with redirect_stdout(io.StringIO()) as said:  # it prints, where `--json` has a document
        onnxruntime.preload_dlls()
    missing = tuple(dict.fromkeys(_FAILED.findall(said.getvalue())))
    return missing if _loads(DRIVER) else (*missing, DRIVER)


@cache
def load_tensorrt() -> tuple[str, ...]:
    """Load TensorRT's libraries for ONNX Runtime; the names of those that are missing."""
    missing = []
    for name in tensorrt_names():
        if not _loads(name) and not any(_loads(str(path)) for path in _in_package(name)):
            missing.append(name)
    return tuple(missing)


def has_cudnn() -> bool:
    """Whether cuDNN is here, which ONNX Runtime looks for when a graph first needs it."""
    load_cuda()
    return _loads(CUDNN)


def tensorrt_names() -> tuple[str, ...]:
    """The libraries of TensorRT that ONNX Runtime was built against, in the order to load them."""
    provider = PROVIDERS / TENSORRT_PROVIDER
    if not provider.exists():
        return (TENSORRT_PROVIDER,)
    found = sorted(set(_TENSORRT.findall(provider.read_bytes())))
    return tuple(name.decode("ascii") for name in found)


def tensorrt_version() -> int:
    """The version of the TensorRT that is loaded, as it numbers itself: 101303 for 10.13.3."""
    return int(ctypes.CDLL(tensorrt_names()[0]).getInferLibVersion())


def why_not_cuda() -> str:
    """What keeps ONNX Runtime from CUDA here, as far as can be told; part of a sentence."""
    if not built_for_cuda():
        return "this onnxruntime is built without CUDA: install onnxruntime-gpu instead of it"
    missing = load_cuda()
    if DRIVER in missing and has_driver():
        return (
            f"an NVIDIA driver is loaded but its {DRIVER} is not here: a container must be started "
            "with the driver capability `compute`"
        )
    if DRIVER in missing or not gpus():
        return missing_gpu()
    if missing:
        return (
            f"these libraries of CUDA {onnxruntime.cuda_version} are missing: {', '.join(missing)}"
        )
    return _last_fault() or "ONNX Runtime did not say why"


def _last_fault() -> str:
    """What the system says when it loads ONNX Runtime's own library for CUDA."""
    try:
        ctypes.CDLL(str(PROVIDERS / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(PROVIDERS / CUDA_PROVIDER))
    except OSError as error:
        return str(error)
    return ""


def _in_package(name: str) -> list[Path]:
    found = find_spec(TENSORRT_PACKAGE)
    folders = found.submodule_search_locations if found else None
    return [path for folder in folders or () if (path := Path(folder) / name).exists()]


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
