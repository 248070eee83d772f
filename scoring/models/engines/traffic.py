"""Traffic: how a batch's bytes get to the device and its results back.

On a GPU the two directions and the computation have a stream each, and order is kept by events on
the device: while one batch is computed, the next is on its way there and the one before on its way
back. Host memory is pinned, because a copy from any other makes the host wait for it.
"""

from __future__ import annotations

from typing import Protocol

import torch


class Arrival(Protocol):
    """Results on their way back."""

    def synchronize(self) -> None:
        """Wait until they are in host memory."""


class Traffic(Protocol):
    """Moves bytes; what a session computes lies between an upload and the download after it."""

    @property
    def kind(self) -> str:
        """The device as ONNX Runtime names it."""

    def host(self, size: int) -> torch.Tensor:
        """Bytes on the host that copies can run from and to."""

    def device(self, size: int) -> torch.Tensor:
        """Bytes on the device."""

    def upload(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy to the device; what is computed from now on waits for it."""

    def download(self, source: torch.Tensor, target: torch.Tensor) -> Arrival:
        """Copy to the host once everything computed so far is done."""

    def settle(self) -> None:
        """Wait until nothing moves or is computed any more."""

    def give_back(self) -> None:
        """Let others have the device memory that was set free."""


class Arrived:
    """Results that are there already."""

    def synchronize(self) -> None:
        pass


class HostTraffic:
    """A device that is the host itself: every copy is done when the call returns."""

    kind = "cpu"

    def host(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8)

    device = host

    def upload(self, source: torch.Tensor, target: torch.Tensor) -> None:
        target.copy_(source)

    def download(self, source: torch.Tensor, target: torch.Tensor) -> Arrived:
        target.copy_(source)
        return Arrived()

    def settle(self) -> None:
        pass

    give_back = settle


class CudaTraffic:
    """A GPU whose session computes on the CUDA stream with the address ``compute``."""

    kind = "cuda"

    def __init__(self, compute: int) -> None:
        self._compute = torch.cuda.ExternalStream(compute)
        self._up, self._down = torch.cuda.Stream(), torch.cuda.Stream()

    def host(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def device(self, size: int) -> torch.Tensor:
        found = torch.empty(size, dtype=torch.uint8, device="cuda")
        # PyTorch may hand out memory that its own stream has not finished with.
        self._up.wait_stream(torch.cuda.current_stream())
        self._compute.wait_stream(torch.cuda.current_stream())
        return found

    def upload(self, source: torch.Tensor, target: torch.Tensor) -> None:
        with torch.cuda.stream(self._up):
            target.copy_(source, non_blocking=True)
        self._compute.wait_stream(self._up)

    def download(self, source: torch.Tensor, target: torch.Tensor) -> torch.cuda.Event:
        self._down.wait_stream(self._compute)
        with torch.cuda.stream(self._down):
            target.copy_(source, non_blocking=True)
        # A waiting thread that slept leaves its core to the threads that read and write.
        return self._down.record_event(torch.cuda.Event(blocking=True))

    def settle(self) -> None:
        for stream in (self._up, self._compute, self._down):
            stream.synchronize()

    def give_back(self) -> None:
        torch.cuda.empty_cache()
