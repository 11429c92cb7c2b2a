"""A profiler trace becomes a small timeline: the right layer, to the microsecond, and shares that add up."""

import gzip
import json

import pytest
from records import make_run

from helpers import runs
from helpers.runs import records, timeline
from helpers.runs.timeline import CATEGORIES, IDLE, Kernel

NAMES = {  # as they stand in real traces of an H200, shortened
    "norm": "void transformer_engine::normalization::ln_fwd_tuned_kernel<Kernel_traits<float> >(LaunchParams)",
    "norm back": "void transformer_engine::normalization::ln_bwd_tuned_kernel<Kernel_traits<float> >(LaunchParams)",
    "norm end": "void transformer_engine::normalization::ln_bwd_finalize_tuned_kernel<Kernel_traits>(LaunchParams)",
    "product": "nvjet_sm90_tst_192x192_64x4_2x1_v_bz_coopB_TNN",
    "attention": "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x64",
    "attention back": "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26_64x64x64",
    "add": "void at::native::vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add<c10::BFloat16> >(int)",
    "adam": "void multi_tensor_apply_kernel<transformer_engine::multi_tensor_adam::AdamFunctor<float> >(long)",
    "gather": "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
}
FORWARD = ("norm", "product", "attention", "product", "add", "norm", "product", "add", "product", "add")
BACKWARD = (
    *("add", "product", "product", "add", "product", "product", "norm back", "norm end", "add"),
    *("product", "product", "attention back", "product", "product", "norm back", "norm end"),
)
LOSS = ("norm", "product", "add", "add", "product", "product", "norm back", "norm end")
PACE, LENGTH, BEGIN = 10.0, 8.0, 4_698_991_278_886.0  # a kernel of 8 µs every 10 µs


def events(names, pace=PACE, others=()):
    """Kernels one after another on stream 7, and others (name, start, duration, stream), as Kineto writes them."""
    placed = [(name, 5 + pace * i, LENGTH, 7) for i, name in enumerate(names)] + list(others)
    return placed, 5 + pace * len(names) + 45


def write(path, placed, step):
    lines = ['{"schemaVersion": 1, "deviceProperties": [{\n      "id": 0, "name": "NVIDIA H200"}],\n"traceEvents": [']
    lines.append(
        '{\n    "ph": "X", "cat": "user_annotation", "name": "ProfilerStep#15", "pid": 3205, "tid": 3205,\n'
        f'    "ts": {BEGIN:.3f}, "dur": {step:.3f},\n    "args": {{}}\n  }},'
    )
    for name, start, duration, stream in placed:
        lines.append(
            f'  {{\n    "ph": "X", "cat": "kernel", "name": "{NAMES[name]}", "pid": 0, "tid": {stream},\n'
            f'    "ts": {BEGIN + start:.3f}, "dur": {duration:.3f},\n    "args": {{"stream": {stream}}}\n  }},'
        )
    lines.append('  {\n    "ph": "X", "cat": "cpu_op", "name": "aten::add", "pid": 1, "tid": 1, "ts": 1, "dur": 2}\n]}')
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


@pytest.fixture
def step(tmp_path):
    """Three layers; a collective that lies half behind the last kernel."""
    names = [*FORWARD * 3, *LOSS, *BACKWARD * 3, "adam"]
    placed, length = events(names)
    collective = ("gather", placed[-1][1] + 4, 10.0, 20)
    return timeline.reduce(write(tmp_path / "trace.json.gz", [*placed, collective], length))


@pytest.mark.parametrize(
    "name, kind",
    [
        (NAMES["product"], "matrix products"),
        ("Memcpy PtoP (Device -> Device)", "collectives"),
        ("kuserbuffers_pushrecv(int, int, int, int, int*, int*, int, unsigned long)", "collectives"),
        ("Memcpy DtoD (Device -> Device)", "copies, other"),
        ("void cublasLt::splitKreduce_kernel<32, 16, int>", "matrix products"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu>", "matrix products"),
        ("void flash_fwd_kernel<cutlass::bfloat16_t>", "attention"),
        ("void cudnn::fusion::compute_dot_do_o_specialized<true, 64>", "attention"),
        (NAMES["norm"], "norms, elementwise"),
        ("triton_poi_fused_add_native_dropout_0", "norms, elementwise"),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy<at::native>", "norms, elementwise"),
        ("void transformer_engine::multi_tensor_l2norm::L2NormFunctor<float>", "optimizer"),
        (NAMES["gather"], "collectives"),
        ("void at_cuda_detail::cub::DeviceRadixSortOnesweepKernel", "copies, other"),
    ],
)
def test_kernels_are_told_by_their_names(name, kind):
    assert timeline.category(name) == kind


def test_the_middle_layer_from_norm_to_norm(step):
    assert (step.layer, step.layers, step.machine) == (2, 3, "NVIDIA H200")
    forward = [kernel.name for kernel in step.forward.kernels]
    assert step.forward.microseconds == pytest.approx(PACE * len(FORWARD)) and len(forward) == len(FORWARD)
    assert forward[0] == "ln_fwd_tuned_kernel" and step.forward.kernels[0].start == 0
    assert [kernel.part for kernel in step.forward.kernels if kernel.part] == ["qkv", "proj", "fc1", "fc2"]
    assert step.forward.idle == pytest.approx(2.0 * len(FORWARD), abs=0.01)
    parts = [kernel.part for kernel in step.backward.kernels if kernel.part]
    assert parts == ["fc2", "fc2", "fc1", "fc1", "proj", "proj", "qkv", "qkv"]
    assert step.backward.microseconds == pytest.approx(PACE * len(BACKWARD), abs=0.01)
    assert step.backward.kernels[-1].name == "ln_bwd_finalize_tuned_kernel"


def test_shares_add_up_and_a_hidden_collective_counts_once(step):
    count = {name: sum(kind == name for kind in FORWARD * 3 + LOSS + BACKWARD * 3) for name in NAMES}
    expected = {
        "matrix products": count["product"] * LENGTH,
        "attention": (count["attention"] + count["attention back"]) * LENGTH,
        "loss": 2 * LENGTH,
        "norms, elementwise": (count["norm"] + count["norm back"] + count["norm end"] + count["add"] - 2) * LENGTH,
        "optimizer": LENGTH,
        "collectives": 6.0,
    }
    for name, microseconds in expected.items():
        assert step.milliseconds[name] * 1e3 == pytest.approx(microseconds, abs=0.01), name
    assert step.hidden_ms * 1e3 == pytest.approx(4.0, abs=0.01)
    assert sum(step.milliseconds.values()) == pytest.approx(step.step_ms)
    assert list(step.milliseconds) == [*CATEGORIES, IDLE]


def test_attention_in_pieces_is_one_layer(tmp_path):
    pieces = [name for kind in FORWARD for name in ([kind] * 2 if kind == "attention" else [kind])]
    back = [name for kind in BACKWARD for name in ([kind] * 2 if kind == "attention back" else [kind])]
    placed, length = events([*pieces * 3, *LOSS, *back * 3])
    one = timeline.reduce(write(tmp_path / "trace.json.gz", placed, length))
    assert one.layers == 3 and one.forward.microseconds == pytest.approx(PACE * len(pieces))


def test_recomputed_layers_are_counted_once(tmp_path):
    placed, length = events([*FORWARD * 3, *LOSS, *(FORWARD + BACKWARD) * 3])
    one = timeline.reduce(write(tmp_path / "trace.json.gz", placed, length))
    assert one.layers == 3 and one.forward.microseconds == pytest.approx(PACE * len(FORWARD))
    assert one.backward.microseconds == pytest.approx(PACE * len(FORWARD + BACKWARD), abs=0.01)
    assert one.milliseconds["loss"] * 1e3 == pytest.approx(2 * LENGTH, abs=0.01)


def test_every_micro_batch_has_its_loss(tmp_path):
    placed, length = events([*FORWARD * 2, *LOSS, *BACKWARD * 2] * 2)
    one = timeline.reduce(write(tmp_path / "trace.json.gz", placed, length))
    assert one.layers == 2 and one.milliseconds["loss"] * 1e3 == pytest.approx(4 * LENGTH, abs=0.01)


def test_a_trace_without_layers_is_refused(tmp_path):
    placed, length = events([*FORWARD, *LOSS, *BACKWARD])
    with pytest.raises(ValueError, match="1 whole layers"):
        timeline.reduce(write(tmp_path / "one.json.gz", placed, length))
    with pytest.raises(ValueError, match="no step of a GPU"):
        timeline.reduce(write(tmp_path / "none.json.gz", [], 10))


def test_a_product_in_pieces_has_the_name_of_the_whole(tmp_path):
    """As `--tp-comm-overlap` cuts it: a piece is computed while the one before is sent."""
    pieces = ("product", "gather", "product")
    forward = [name for kernel in FORWARD for name in (pieces if kernel == "product" else (kernel,))]
    placed, length = events([*forward * 3, *LOSS, *BACKWARD * 3, "adam"])
    found = timeline.reduce(write(tmp_path / "trace.json.gz", placed, length)).forward.kernels
    parts = [kernel.part for kernel in found if kernel.category == "matrix products"]
    assert parts == [part for part in timeline.PARTS for _ in range(2)]


def test_a_runs_timeline_is_kept_small_and_found_again(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    placed, length = events([*FORWARD * 3, *LOSS, *BACKWARD * 3, "adam"])
    (run.path / "torch_profile").mkdir()
    write(run.path / timeline.TRACE, placed, length)
    monkeypatch.setattr(records, "RECORDED", tmp_path / "recorded")
    runs.record(run, "a_run", tmp_path / "recorded")
    path = timeline.record(run, "a_run", tmp_path / "recorded")
    assert path == tmp_path / "recorded" / "h200" / "timelines" / "a_run.json" and path.stat().st_size < 10_000
    kept = timeline.recorded("h200", "a_run")
    assert kept.usual_step_ms == 500 and kept.forward.kernels[1] == Kernel(
        "matrix products", 10.0, 8.0, 7, NAMES["product"], "qkv"
    )
    assert str(tmp_path) not in path.read_text() and json.loads(path.read_text())["layers"] == 3
    assert [run.path.stem for run in runs.recorded("h200")] == ["a_run"]
    assert repr(timeline.recorded("h200", "other")).startswith("No timeline of other is recorded yet")


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage", "AG"),
        ("ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL(ncclDevKernelAr", "RS"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "AR"),
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage", "A2A"),
        ("Memcpy PtoP (Device -> Device)", "copy"),
        ("kuserbuffers_pushrecv(int, int", ""),
    ],
)
def test_a_collective_has_a_short_name(name, short):
    assert timeline.category(name) == "collectives" and Kernel("collectives", 0, 1, 7, name).collective == short


def test_a_timeline_is_found_on_whatever_machine_it_was_recorded():
    found = timeline.recorded_anywhere("no_such_profile", "llama3_8b_profile")
    assert found in [timeline.recorded(label, "llama3_8b_profile") for label in ("h200", "h100-80gb-hbm3")]
    assert "No timeline of no_such_profile is recorded yet" in str(timeline.recorded_anywhere("no_such_profile"))


def test_the_eight_billion_by_tp_2_wait_for_launches_in_fp8():
    """The sentences of notebook 04: shares of the profiled step, launches and waiting of its middle layer."""
    bf16, fp8 = (timeline.recorded("h200", f"llama3_8b_{name}_tp2_sp_profile") for name in ("bf16", "tensorwise"))
    assert [round(one.milliseconds["matrix products"]) for one in (bf16, fp8)] == [1047, 570]
    waited = (fp8.milliseconds["collectives"] + fp8.milliseconds["idle"]) / fp8.step_ms
    assert waited == pytest.approx(0.45, abs=0.01)
    layers = [(*one.forward.kernels, *one.backward.kernels) for one in (bf16, fp8)]
    assert [len(layer) for layer in layers] == [63, 106]
    idle = [one.forward.idle / one.forward.microseconds for one in (bf16, fp8)]
    assert idle == pytest.approx([0.01, 0.46], abs=0.005)
    reduced = [[k for k in layer if "AllReduce" in k.name] for layer in layers]
    assert [len(some) for some in reduced] == [0, 4]
    assert max(k.duration for k in reduced[1]) == pytest.approx(900, abs=50)  # µs, for 4 bytes
    gathers = [[k.duration for k in one.forward.kernels if "AllGather" in k.name] for one in (bf16, fp8)]
    assert [min(some) for some in gathers] == pytest.approx([170, 90], abs=5)
    slowed = [one.step_ms / one.usual_step_ms - 1 for one in (bf16, fp8)]
    assert slowed == pytest.approx([0.04, 0.29], abs=0.006)
