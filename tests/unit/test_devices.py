"""Devices are read from what the system says; each worker child gets its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from celery.concurrency.prefork import TaskPool as Prefork
from celery.concurrency.solo import TaskPool as Solo
from onnx import TensorProto, helper, numpy_helper

from scoring import devices
from scoring.devices import Gpu
from scoring.errors import DeviceUnavailable
from scoring.models.engines import EngineOptions, tensorrt
from scoring.models.engines.libraries import tensorrt_names
from scoring.models.engines.session import (
    cuda_options,
    device_of,
    open_session,
    operators_by_provider,
)
from tasks import devices as children

H100, A10 = "GPU-0a1b2c3d-0000-1111-2222-333344445555", "GPU-9f8e7d6c-aaaa-bbbb-cccc-ddddeeeeffff"
SLICE = "MIG-5c1d2e3f-0000-1111-2222-333344445555"
INSTALLED = (Gpu(id=H100, name="NVIDIA H100 80GB HBM3"), Gpu(id=A10, name="NVIDIA A10"))
LISTING = f"""\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: {H100})
  MIG 3g.40gb     Device  0: (UUID: {SLICE})
GPU 1: NVIDIA A10 (UUID: {A10})
"""
INFORMATION = """\
Model: \t\t {name}
IRQ:   \t\t 136
GPU UUID: \t {uuid}
Video BIOS: \t 96.00.74.00.01
Bus Type: \t PCIe
Bus Location: \t 0000:0{bus}:00.0
Device Minor: \t {bus}
GPU Excluded:\t {excluded}
"""
XEON = """\
processor\t: 0
model name\t: Intel(R) Xeon(R)  Platinum 8481C CPU
flags\t\t: fpu vme avx2 avx512f avx512_vnni amx_tile amx_int8
"""
OLD_XEON = XEON.replace("avx512_vnni", "").replace("amx_int8", "")
GRAVITON = """\
processor\t: 0
Features\t: fp asimd asimddp sve i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def driver_folder(root: Path, *gpus: tuple[str, str, str]) -> Path:
    """What the Linux driver writes: a folder per bus address."""
    for bus, (name, uuid, excluded) in enumerate(gpus):
        folder = root / f"0000:0{bus}:00.0"
        folder.mkdir(parents=True)
        text = INFORMATION.format(name=name, uuid=uuid, bus=bus, excluded=excluded)
        (folder / "information").write_text(text, encoding="utf-8")
    return root


# What is here


def test_gpus_are_read_from_the_drivers_folder_in_bus_order(tmp_path: Path) -> None:
    folder = driver_folder(
        tmp_path, ("NVIDIA H100 80GB HBM3", H100, "No"), ("NVIDIA A10", A10, "No")
    )

    assert devices.from_driver(folder) == INSTALLED


def test_a_gpu_without_a_uuid_is_known_by_its_number_and_an_excluded_one_not_at_all(
    tmp_path: Path,
) -> None:
    unknown = "GPU-????????-????-????-????-????????????"
    folder = driver_folder(
        tmp_path, ("Broken", A10, "Yes"), ("NVIDIA A10", unknown, "No"), ("NVIDIA A10", A10, "No")
    )

    assert [gpu.id for gpu in devices.from_driver(folder)] == ["0", A10]


def test_a_machine_without_the_drivers_folder_has_no_gpus_there(tmp_path: Path) -> None:
    assert devices.from_driver(tmp_path / "missing") == ()


def test_a_listing_names_gpus_and_their_slices() -> None:
    assert devices.from_listing(LISTING) == (
        INSTALLED[0],
        Gpu(id=SLICE, name="NVIDIA H100 80GB HBM3 MIG 3g.40gb"),
        INSTALLED[1],
    )
    assert devices.from_listing("No devices found.\n") == ()


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (None, ["NVIDIA H100 80GB HBM3", "NVIDIA A10"]),
        ("0,1", ["NVIDIA H100 80GB HBM3", "NVIDIA A10"]),
        (" 1 , 0 ", ["NVIDIA A10", "NVIDIA H100 80GB HBM3"]),
        (A10, ["NVIDIA A10"]),
        ("GPU-9f8e", ["NVIDIA A10"]),
        ("1,-1,0", ["NVIDIA A10"]),
        ("0,7", ["NVIDIA H100 80GB HBM3"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_what_is_chosen_is_visible_as_cuda_reads_it(chosen: str | None, names: list[str]) -> None:
    assert [gpu.name for gpu in devices.visible(chosen, INSTALLED)] == names


def test_a_slice_is_visible_by_its_uuid_and_does_not_change_the_numbers() -> None:
    listed = devices.from_listing(LISTING)

    assert [gpu.name for gpu in devices.visible(f"{SLICE},1", listed)] == [
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "NVIDIA A10",
    ]


def test_processors_that_differ_in_int8_are_different_devices() -> None:
    assert devices.cpu_name(XEON) == "Intel(R) Xeon(R) Platinum 8481C CPU (avx512_vnni, amx_int8)"
    assert devices.cpu_name(OLD_XEON) == "Intel(R) Xeon(R) Platinum 8481C CPU"
    assert devices.cpu_name(GRAVITON).endswith("0x41 0xd40 (asimddp, i8mm)")
    assert devices.cpu_name("")


def test_a_hidden_gpu_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    assert devices.gpus() == devices.gpu_ids() == ()
    assert devices.device_name("auto") == devices.device_name("cpu") == devices.cpu_name()
    with pytest.raises(DeviceUnavailable, match="asks for device cuda, but this worker got no GPU"):
        devices.device_name("cuda")


# What each child gets


def test_children_take_the_gpus_in_turn() -> None:
    assert [devices.gpu_for(child, ["4", "7"]) for child in range(5)] == ["4", "7", "4", "7", "4"]


def test_children_get_what_somebody_chose_even_by_names_we_do_not_know() -> None:
    chosen = {"CUDA_VISIBLE_DEVICES": f"4, {SLICE}"}

    assert devices.gpu_ids(chosen) == ("4", SLICE)


@pytest.mark.parametrize(
    ("options", "configured", "expected"),
    [
        ({"queues": ["gpu"]}, None, 3),
        ({"queues": "gpu,gpu-a100"}, None, 3),
        ({"queues": ["gpu"], "concurrency": 1}, None, None),
        ({"queues": ["gpu"], "autoscale": (4, 1)}, None, None),
        ({"queues": ["gpu"]}, 8, None),
        ({"queues": ["gpu", "cpu"]}, None, None),
        ({"queues": ["cpu"]}, None, None),
        ({}, None, None),
    ],
)
def test_a_worker_of_gpu_queues_alone_has_a_child_per_gpu_unless_told_otherwise(
    options: dict[str, Any],
    configured: int | None,
    expected: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,9")

    assert children.children_by_default(options, configured) == expected


def test_a_worker_of_gpu_queues_on_a_machine_without_gpus_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    assert children.children_by_default({"queues": ["gpu"]}, None) is None


@pytest.mark.parametrize(
    ("worker", "expected"),
    [
        ({"concurrency": 3}, 3),
        ({"concurrency": 3, "options": {"autoscale": (10, 2)}}, 10),
        ({"concurrency": 3, "options": {"autoscale": "2,10"}}, 10),
        ({"concurrency": 3, "pool_cls": Solo}, 1),
        ({"concurrency": 3, "pool_cls": "solo"}, 1),
        ({"concurrency": 3, "pool_cls": "celery.concurrency.solo:TaskPool"}, 1),
    ],
)
def test_the_number_of_children_is_known_before_they_start(
    worker: dict[str, Any], expected: int
) -> None:
    given = {"pool_cls": Prefork, "options": {}} | worker

    assert children.children(SimpleNamespace(**given)) == expected


def test_automatic_concurrency_is_resolved_as_celery_will() -> None:
    worker = SimpleNamespace(pool_cls=Prefork, options={}, concurrency="auto")

    assert children.children(worker) >= 1


@pytest.mark.parametrize(("count", "threads"), [(1, "8"), (3, "2"), (8, "1"), (20, "1")])
def test_children_share_the_cores(count: int, threads: str) -> None:
    environment: dict[str, str] = {}

    children.share_cores(count, 8, environment)

    assert environment == {"SCORING_WORKERS": str(count), "OMP_NUM_THREADS": threads}


def test_threads_that_somebody_chose_stay() -> None:
    environment = {"OMP_NUM_THREADS": "5"}

    children.share_cores(2, 8, environment)

    assert environment["OMP_NUM_THREADS"] == "5"


def test_a_child_sees_the_gpu_of_its_place() -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "4,7"}

    children.claim_gpu(environment)  # not in a pool: the first place

    assert environment == {"CUDA_VISIBLE_DEVICES": "4"}


@pytest.mark.parametrize("chosen", ["", "-1"])
def test_a_child_that_may_see_no_gpu_sees_none(chosen: str) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": chosen}

    children.share_gpus(2, environment)
    children.claim_gpu(environment)

    assert environment == {"CUDA_VISIBLE_DEVICES": chosen}


# Sessions


def network(kind: int = TensorProto.FLOAT, width: int | str = 4) -> onnx.ModelProto:
    weights = numpy_helper.from_array(np.ones((4, 2), helper.tensor_dtype_to_np_dtype(kind)), "W")
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["X", "W"], ["Y"])],
            "test",
            [helper.make_tensor_value_info("X", kind, ["rows", width])],
            [helper.make_tensor_value_info("Y", kind, ["rows", 2])],
            [weights],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    onnx.save(network(), tmp_path / "model/model.onnx")
    return tmp_path / "model/model.onnx"


@pytest.mark.parametrize("wants_tensorrt", [False, True])
def test_cuda_without_a_gpu_is_refused_with_what_is_missing(
    graph: Path, wants_tensorrt: bool
) -> None:
    if devices.has_driver():
        pytest.skip("there is a GPU here")

    with pytest.raises(DeviceUnavailable, match="got the CPU: no GPU, because no NVIDIA driver"):
        open_session(graph, EngineOptions(device="cuda", threads=1, tensorrt=wants_tensorrt))


def test_auto_without_a_gpu_means_the_cpu(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    session = open_session(graph, EngineOptions(device="auto", threads=1))

    assert device_of(session) == "cpu"
    assert operators_by_provider(session) == {"CPUExecutionProvider": {"MatMul": 1}}


def test_a_session_computes_on_the_stream_it_is_given() -> None:
    assert cuda_options(140_000_000)["user_compute_stream"] == "140000000"
    assert "user_compute_stream" not in cuda_options(0), "0 is CUDA's default stream, not ours"


def test_tensorrt_compiles_for_every_batch_up_to_the_largest() -> None:
    shapes = tensorrt.row_shapes(network().graph)

    assert tensorrt.profile(shapes, 256, 16_384) == {
        "trt_profile_min_shapes": "X:1x4",
        "trt_profile_opt_shapes": "X:256x4",
        "trt_profile_max_shapes": "X:16384x4",
    }
    assert tensorrt.row_range(network().graph, 0) == (4_096, 65_536)
    assert tensorrt.row_range(network().graph, 1_000) == (1_000, 1_000)


def test_tensorrt_is_not_for_graphs_with_another_open_axis() -> None:
    with pytest.raises(tensorrt.NotForTensorRT, match="X has an open axis beside the rows"):
        tensorrt.row_shapes(network(width="tokens").graph)


def test_tensorrt_computes_in_half_only_what_was_built_in_half() -> None:
    assert tensorrt.computes_in_half(network(TensorProto.FLOAT16).graph)
    assert not tensorrt.computes_in_half(network().graph)


def test_tensorrt_engines_are_kept_by_everything_they_depend_on(
    graph: Path, tmp_path: Path
) -> None:
    def folder(rows: int = 0, version: int = 101303, gpu: str = "NVIDIA A10") -> str:
        options = EngineOptions(device="cuda", threads=1, batch_rows=rows, cache=tmp_path / "kept")
        chosen = tensorrt.provider_options(graph, options, version, gpu)
        with tensorrt.one_compiles(chosen):
            assert Path(chosen["trt_engine_cache_path"]).is_dir()
        return chosen["trt_engine_cache_path"]

    first = folder()
    assert folder() == first
    others = [folder(rows=512), folder(version=110000), folder(gpu="NVIDIA H100")]
    onnx.save(network(TensorProto.FLOAT16), graph)
    others.append(folder())

    assert len({first, *others}) == 5


def test_tensorrt_without_a_place_to_keep_engines_keeps_none(graph: Path) -> None:
    chosen = tensorrt.provider_options(
        graph, EngineOptions(device="cuda", threads=1), 101303, "A10"
    )

    assert not [name for name in chosen if "cache" in name]


def test_the_libraries_of_tensorrt_are_those_that_onnxruntime_was_built_against() -> None:
    assert any("nvinfer" in name or "tensorrt" in name for name in tensorrt_names())
