"""Which GPU and how many threads each worker child gets.

A child's place in the pool decides: the n-th child has the n-th GPU to itself, and a child that
replaces a dead one takes its place and its GPU. It is chosen through the environment before
anything in the child loads CUDA.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping, Sequence
from typing import Any

from billiard import process
from celery.utils.sysinfo import cpu_budget, is_auto_concurrency
from celery.utils.text import str_to_list

from scoring import telemetry
from scoring.devices import BUS_ORDER, ORDER, VISIBLE, gpu_for, gpu_ids

log = telemetry.logger(__name__)

GPU_QUEUE = "gpu"
"""A queue of this name, or of a name that begins with it (``gpu-a100``), is for GPUs alone."""


def children_by_default(options: dict[str, Any], configured: Any) -> int | None:
    """Children of a worker that serves GPUs alone and was not told how many: one per GPU."""
    told = options.get("concurrency") or configured or options.get("autoscale")
    if told or not _serves_only_gpus(str_to_list(options.get("queues")) or ()):
        return None
    return len(gpu_ids()) or None


def children(worker: Any) -> int:
    """How many children a worker that is about to start will have, at most."""
    options = getattr(worker, "options", {})
    if _is_solo(worker.pool_cls):
        return 1
    if scale := options.get("autoscale"):
        return max(int(limit) for limit in str_to_list(scale))
    if is_auto_concurrency(worker.concurrency):
        return int(cpu_budget().count)
    return int(worker.concurrency)


def share_cores(count: int, cores: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Give each of ``count`` children its part of the cores; they inherit this environment."""
    environment["SCORING_WORKERS"] = str(count)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))


def share_gpus(count: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Name the machine's GPUs for the children, which then need not look for them again."""
    ids = gpu_ids(environment)
    if not ids:
        return
    if VISIBLE not in environment:
        environment.setdefault(ORDER, BUS_ORDER)
        environment[VISIBLE] = ",".join(ids)
    if count > len(ids):
        log.warning(
            "gpus_shared",
            children=count,
            gpus=len(ids),
            advice=f"start this worker with --concurrency={len(ids)}: children that share a GPU "
            "also share its memory",
        )


def claim_gpu(environment: MutableMapping[str, str] = os.environ) -> None:
    """Leave this child one GPU, if there are any; call it before anything loads CUDA."""
    ids = gpu_ids(environment)
    if not ids:
        return
    child = int(getattr(process.current_process(), "index", 0))
    environment[VISIBLE] = gpu_for(child, ids)
    log.info("gpu_claimed", child=child, gpu=environment[VISIBLE], of=len(ids))


def _serves_only_gpus(queues: Sequence[str]) -> bool:
    return bool(queues) and all(queue.startswith(GPU_QUEUE) for queue in queues)


def _is_solo(pool: Any) -> bool:
    name = pool if isinstance(pool, str) else getattr(pool, "__module__", "")
    return name.rpartition(".")[2].partition(":")[0] == "solo"
