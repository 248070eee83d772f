"""A slot: buffers on the host and on the device for one batch, and a session's binding to them.

Invariant: between `start` and `fetch` nothing else touches the buffers. All inputs lie in one
buffer and all outputs in another, so that a batch costs one copy each way, however many columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from scoring.models.engines.runner import Feeds
from scoring.models.engines.traffic import Arrival, Traffic

Array = npt.NDArray[Any]

ALIGNMENT = 256
"""Bytes; CUDA's own allocations begin at multiples of it."""
NO_WAITING = "disable_synchronize_execution_providers"
"""Run option: return when the work is queued, not when it is done."""


@dataclass(frozen=True, slots=True)
class Region:
    """Where an array lies in a buffer."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    """Byte in the buffer."""

    @property
    def stop(self) -> int:
        return self.start + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def of(self, buffer: Array) -> Array:
        """The array, as a view of a buffer of bytes."""
        return buffer[self.start : self.stop].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """Arrays one behind the other in one buffer."""

    regions: tuple[Region, ...]
    size: int


NOTHING = Layout((), 0)


def packed(arrays: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> Layout:
    """A layout for arrays of these types and shapes, each aligned."""
    regions: list[Region] = []
    end = 0
    for name, (dtype, shape) in arrays.items():
        regions.append(Region(name, dtype, shape, end))
        end = -(-regions[-1].stop // ALIGNMENT) * ALIGNMENT
    return Layout(tuple(regions), max(end, ALIGNMENT))


class Batch:
    """The results of one batch, once they are fetched."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self.outputs: list[Array] = []

    def result(self) -> list[Array]:
        """The outputs; waits for them."""
        if not self.outputs:
            self._slot.fetch()
        return self.outputs


class Slot:
    """Room for one batch."""

    def __init__(self, session: onnxruntime.InferenceSession, traffic: Traffic) -> None:
        self._session, self._traffic = session, traffic
        self._binding = session.io_binding()
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry(NO_WAITING, "1")
        self._inputs = self._outputs = NOTHING
        self._host_in = self._host_out = traffic.host(ALIGNMENT)
        self._device_in = self._device_out = traffic.device(ALIGNMENT)
        self._under_way: tuple[Batch, Arrival] | None = None

    def start(self, feeds: Feeds, inputs: Layout, outputs: Layout) -> Batch:
        """Queue a batch, after the one before has been fetched."""
        self.fetch()
        if (inputs, outputs) != (self._inputs, self._outputs):
            self._bind(inputs, outputs)
        staged = self._host_in.numpy()
        for region in inputs.regions:
            np.copyto(region.of(staged), feeds[region.name])
        self._traffic.upload(self._host_in[: inputs.size], self._device_in[: inputs.size])
        self._session.run_with_iobinding(self._binding, self._options)
        arrival = self._traffic.download(
            self._device_out[: outputs.size], self._host_out[: outputs.size]
        )
        batch = Batch(self)
        self._under_way = (batch, arrival)
        return batch

    def fetch(self) -> None:
        """Wait for the batch under way, if there is one, and take its results out."""
        if self._under_way is None:
            return
        batch, arrival = self._under_way
        arrival.synchronize()
        arrived = self._host_out.numpy()
        batch.outputs = [region.of(arrived).copy() for region in self._outputs.regions]
        self._under_way = None

    def _bind(self, inputs: Layout, outputs: Layout) -> None:
        """Bind to addresses in the buffers, or in larger ones if these are too small.

        Done before the upload: if a binding copied what it is bound to, as ONNX Runtime does
        between devices, the results of the slot's first batch would show it.
        """
        self._inputs = self._outputs = NOTHING  # in case memory runs out below
        if inputs.size > len(self._host_in):
            self._host_in, self._device_in = self._room(inputs.size)
        if outputs.size > len(self._host_out):
            self._host_out, self._device_out = self._room(outputs.size)
        kind = self._traffic.kind
        for region in inputs.regions:
            place = self._device_in.data_ptr() + region.start
            self._binding.bind_input(region.name, kind, 0, region.dtype.type, region.shape, place)
        for region in outputs.regions:
            place = self._device_out.data_ptr() + region.start
            self._binding.bind_output(region.name, kind, 0, region.dtype.type, region.shape, place)
        self._inputs, self._outputs = inputs, outputs

    def _room(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Bytes on the host and on the device, with some to spare for texts that get longer."""
        size = 1 << (size - 1).bit_length()
        return self._traffic.host(size), self._traffic.device(size)
