"""Every known symptom is found in a real log, with its cause before its consequences."""

import argparse
import json
import re

import megatron_parser
import pytest

from helpers.machine import PROJECT
from helpers.processes import diagnosis, logs
from helpers.processes.symptoms import CONSEQUENCES, SYMPTOMS

BROKEN = PROJECT / "notebooks" / "recorded" / "broken"

# What Megatron 0.19.2 and torch 2.11 wrote when the failure was provoked on CPU ranks.
PROVOKED = {
    "flag with a wrong value": """
[rank 0] pretrain_gpt.py: error: argument --fp8-format/--fp8-format: invalid choice: 'e5' (choose from e4m3, hybrid)
""",
    "hosts that do not reach each other": """
RuntimeError: Gloo connectFullMesh failed with [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:152] timed out \
connecting: SO_ERROR: Connection refused, remote=[127.0.1.1]:30105$0
""",
    "a network that is not there": """
RuntimeError: [enforce fail at /pytorch/third_party/gloo/gloo/transport/tcp/device.cc:84] ifa != nullptr. Unable to \
find address for: ib0
""",
    "heads do not divide": """
[default1]:    raise ValueError(
[default1]:ValueError: num_attention_heads (4) must be a multiple of tensor_model_parallel_size (3).
""",
    "processes do not divide": """
[default0]:    assert args.world_size % total_model_size == 0, (
[default0]:AssertionError: world size (3) is not divisible by total_model_size (total_model_size=2)
""",
    "batch does not divide": """
[default1]:AssertionError: eval_global_batch_size (10) must be divisible by eval_micro_batch_size (4) * \
data_parallel_size (2)
""",
    "evaluation without an interval": """
[rank 0] [rank0]: TypeError: unsupported operand type(s) for //: 'int' and 'NoneType'
""",
    "--save without an interval": """
  File "site-packages/megatron/training/arguments.py", line 1322, in validate_args
    assert args.save_interval is not None
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
AssertionError
""",
    "TE cross entropy": """
    assert not (
AssertionError: Transformer Engine cross entropy loss fusion is disabled due to stability issues. Use \
--cross-entropy-fusion-impl native, or omit --cross-entropy-loss-fusion.
""",
    "apex missing": """
[rank0]:     assert not config.persist_layer_norm, f"persist_layer_norm not supported by torch LayerNorm"
[rank0]: AssertionError: persist_layer_norm not supported by torch LayerNorm when instantiating TransformerLayer
""",
    "Transformer Engine missing": """
[default0]:/site-packages/megatron/core/optimizer/__init__.py:25: UserWarning: Transformer Engine and Apex are not \
installed. Falling back to Torch optimizers.
[default0]:[rank0]:     backend = TESpecProvider()
[default0]:[rank0]:               ^^^^^^^^^^^^^^^^
[default0]:[rank0]: TypeError: 'NoneType' object is not callable
""",
    "Megatron's data helpers have no Makefile": """
[default0]:make: *** No targets specified and no makefile found.  Stop.
[default0]:> compiling dataset index builder ...
[default0]:ERROR:megatron.core.datasets.utils:Failed to compile the C++ dataset helper functions
""",
    "no GPU": """
    torch._C._cuda_init()
RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver \
from http://www.nvidia.com/Download/index.aspx
""",
    "disk full": """
[rank0]: RuntimeError: Worker failure: An error is caught while starting worker 0, error: <class 'RuntimeError'>
ERROR:megatron.core.dist_checkpointing.strategies.filesystem_async:Local worker 0 encountered an error: \
[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598
""",
    "port taken": """
torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port: 29555, \
useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use
""",
    "a file where a folder should be": "[rank0]: NotADirectoryError: [Errno 20] Not a directory: 'results/ck'",
    "corpus files missing": """
[rank0]:     assert os.path.exists(idx_path) and os.path.exists(bin_path), (
[rank0]: AssertionError: One or both of the .idx and .bin files cannot be found at the path prefix data/c_text_document
Exception ignored in: <function IndexedDataset.__del__ at 0x7f5bd1d0f1a0>
AttributeError: 'IndexedDataset' object has no attribute 'bin_reader'
""",
    "tokenizer files missing": """
ValueError: Unable to instantiate HuggingFace AutoTokenizer for gpt2. Exception: We couldn't connect to \
'https://huggingface.co' to load the files, and couldn't find them in the cached files.
""",
    "old checkpoint": """
    raise pickle.UnpicklingError(_get_wo_message(str(e))) from None
_pickle.UnpicklingError: Weights only load failed. This file can still be loaded, to do so you have two options
	WeightsUnpickler error: Unsupported global: GLOBAL argparse.Namespace was not an allowed global by default.
""",
    "schedule changed on resume": """
[rank0]: AssertionError: OptimizerParamScheduler: class input value 160 and checkpointvalue 40 for total number of \
iterations do not match
""",
    "checkpoint of another model": """
[rank0]: megatron.core.dist_checkpointing.core.CheckpointingException: Global shape mismatch for loaded \
(torch.Size([64, 64])) and expected ((64, 128)) tensor for key embedding.position_embeddings.weight
""",
    "W&B without login": "wandb.errors.errors.UsageError: No API key configured. Use `wandb login` to log in.",
    "loss is not a number": """
ERROR:megatron.core.rerun_state_machine:Unexpected result nan on rank 0 at iteration #3 invocation #1 \
(message='found NaN in local forward loss calculation')
WARNING:megatron.core.rerun_state_machine:Saving a checkpoint and exiting now.
[rank0]:     common_path = os.path.join(checkpoints_path, directory)
[rank0]: TypeError: expected str, bytes or os.PathLike object, not NoneType
""",
    "killed by the kernel": """
  exitcode  : -15 (pid: 14620)
  traceback : Signal 15 (SIGTERM) received by PID 14620
Root Cause (first observed failure):
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 14621)
  traceback : Signal 9 (SIGKILL) received by PID 14621
""",
    "ended by a signal": """
RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:22
torch.distributed.elastic.multiprocessing.api.SignalException: Process 14588 got signal: 15
""",
    "overlapped tensor parallelism": """
[rank0]:     raise RuntimeError(
[rank0]: RuntimeError: Tensor Parallel Communication/GEMM Overlap optimization needs 'yaml' and 'transformer_engine' \
packages
ModuleNotFoundError: import of transformer_engine halted; None in sys.modules
""",
    "nvidia-resiliency-ext missing": """
  ModuleNotFoundError: No module named 'nvidia_resiliency_ext'

      raise RuntimeError('nvidia_resiliency_ext is required for local checkpointing') from e
  RuntimeError: nvidia_resiliency_ext is required for local checkpointing
""",
    "layout changed, one file a rank": """
[rank0]: AssertionError: tensor_model_parallel_size value from checkpoint (2) is not equal to the input argument \
value (1).
""",
    "no optimizer in the checkpoint": """
Unable to load optimizer from checkpoint runs/gpt/checkpoints/iter_0000002/mp_rank_00/model_optim_rng.pt. Specify \
--no-load-optim or --finetune to prevent attempting to load the optimizer state, exiting ...
      raise e
    File "site-packages/megatron/training/checkpointing.py", line 2573, in load_checkpoint
      optimizer.load_state_dict(state_dict['optimizer'])
  KeyError: 'optimizer'
""",
    "no checkpoint to load": """
time to initialize megatron (seconds): 18.655
>> '--exit-on-missing-checkpoint' set ... exiting. <<
""",
    "damaged checkpoint": """
[rank0]:     raise CheckpointException(step, node_failures)
[rank0]: torch.distributed.checkpoint.api.CheckpointException: CheckpointException ranks:dict_keys([0])
[rank0]: Traceback (most recent call last): (RANK 0)
[rank0]:   File "site-packages/torch/distributed/checkpoint/filesystem.py", line 899, in read_data
[rank0]:     torch.load(
[rank0]:   File "site-packages/torch/_weights_only_unpickler.py", line 327, in load
[rank0]:     raise EOFError
[rank0]: EOFError
""",
    "machines did not meet": """
  File "site-packages/torch/distributed/elastic/rendezvous/dynamic_rendezvous.py", line 680, in run
    raise RendezvousTimeoutError
torch.distributed.elastic.rendezvous.api.RendezvousTimeoutError
""",
    "gloo waited too long": """
[rank0]: RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 3000ms \
for recv operation to complete
""",
    "lost a rank": """
[rank0]: RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer \
[127.0.0.1]:1751
""",
}

# What cannot be provoked without a GPU, a container or another version: the words of the named source.
FROM_SOURCES = {
    # megatron/training/arguments.py:1437
    "CUDA_DEVICE_MAX_CONNECTIONS must be 1": "AssertionError: Using tensor model parallelism or context parallelism "
    "require setting the environment variable CUDA_DEVICE_MAX_CONNECTIONS to 1",
    # megatron/training/arguments.py:1143
    "CUDA_DEVICE_MAX_CONNECTIONS must not be 1": "FSDP requires CUDA_DEVICE_MAX_CONNECTIONS > 1 or unset.",
    # megatron/training/arguments.py:1195, seen on an H200
    "CUDA graph and NaN": "AssertionError: --no-check-for-nan-in-loss-and-grad should be set with "
    "--cuda-graph-impl=full_iteration for training.",
    # megatron/core/tensor_parallel/layers.py:1071
    "gradient accumulation fusion": "RuntimeError: ColumnParallelLinear was called with gradient_accumulation_fusion "
    "set to True but the custom CUDA extension fused_weight_gradient_mlp_cuda module is not found.",
    # seen with --transformer-impl local on an H200
    "masked softmax fusion": "[rank0]: ModuleNotFoundError: No module named 'scaled_masked_softmax_cuda'",
    # github.com/Dao-AILab/flash-attention/issues/1832
    "flash-attention built for another torch": "ImportError: /opt/lib/python3.12/site-packages/flash_attn_2_cuda."
    "cpython-312-x86_64-linux-gnu.so: undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_string",
    # seen with cuDNN 9.14 of the system beside 9.19 of torch (H200, Transformer Engine 2.20)
    "two cuDNNs": "OSError: /usr/lib/x86_64-linux-gnu/libcudnn_heuristic.so.9: undefined symbol: "
    "_ZN5cudnn7backend11getLayoutEv, version libcudnn_graph.so.9",
    # seen on import of transformer_engine 2.20 without torch before it
    "torch was not imported first": "OSError: libnccl.so.2: cannot open shared object file: No such file or directory",
    # github.com/NVIDIA/TransformerEngine/issues/2504
    "Transformer Engine built for another torch": "OSError: /env/lib/python3.12/site-packages/transformer_engine/"
    "libtransformer_engine.so: undefined symbol: _ZN18transformer_engine9to_stringERK15NVTEScalingMode",
    # torch/_inductor/exc.py:131
    "triton missing": "torch._inductor.exc.TritonMissing: Cannot find a working triton installation. Either the "
    "package is not installed or it is too old.",
    # triton/runtime/build.py:32
    "no C compiler for triton": "RuntimeError: Failed to find C compiler. Please specify via CC environment variable",
    # the message of megatron-core 0.16, which has no such package
    "Megatron too old": "ModuleNotFoundError: No module named 'megatron.training'",
    "package missing": "ModuleNotFoundError: No module named 'sentencepiece'",
    # torch/lib/libtorch_cuda.so (torch/csrc/cuda/Module.cpp); github.com/lllyasviel/Omost/issues/120
    "driver too old": "RuntimeError: The NVIDIA driver on your system is too old (found version 11060). Please update "
    "your GPU driver",
    # cudaGetErrorString(cudaErrorNoKernelImageForDevice), libcudart.so.13
    "no kernel for this GPU": "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the "
    "device",
    # cudaGetErrorString(cudaErrorInvalidDevice), libcudart.so.13
    "more ranks than GPUs": "[rank1]: torch.AcceleratorError: CUDA error: invalid device ordinal",
    # transformer_engine/pytorch/quantization.py:154
    "no FP8 here": "AssertionError: Device compute capability 8.9 or higher required for FP8 execution.",
    # src/misc/shmutils.cc of NCCL; github.com/pytorch/ci-infra/pull/490
    "/dev/shm too small": "misc/shmutils.cc:88 NCCL WARN Error: failed to extend /dev/shm/nccl-WU88OE to 9637892 "
    "bytes, error: No space left on device (28)",
    # a data loader's worker queue, multiprocessing/synchronize.py:57, where /dev/shm is mounted read-only
    "/dev/shm closed": "    sl = self._semlock = _multiprocessing.SemLock(\n                         "
    "^^^^^^^^^^^^^^^^^^^^^^^^^\nOSError: [Errno 30] Read-only file system",
    # c10/cuda/CUDACachingAllocator.cpp
    "GPU memory full": "[rank0]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 12.27 GiB. GPU 0 has a "
    "total capacity of 139.80 GiB of which 4.11 GiB is free.",
    # seen on an H200
    "GPU memory full beside a CUDA graph": "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate "
    "56.00 MiB. GPU 1 has a total capacity of 139.80 GiB of which 20.31 MiB is free. Of the allocated memory 136.36 "
    "GiB is allocated by PyTorch, with 38.78 GiB allocated in private pools (e.g., CUDA Graphs), and",
    # c10/core/impl/alloc_cpu.cpp
    "main memory full": "RuntimeError: [enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't "
    "allocate memory: you tried to allocate 17179869184 bytes. Error code 12 (Cannot allocate memory)",
    "too many open files": "OSError: [Errno 24] Too many open files: 'checkpoints/iter_0000020/__0_0.distcp'",
    # the ranks' words, and the supervisor's (helpers/processes/checkpoints.py, no_room)
    "limit on the size of files": "Local worker 0 encountered an error: [enforce fail at inline_container.cc:672] . "
    "unexpected pos 704 vs 598\nrank 0 ended with exit code 1; File too large: one came to the limit of 600,000 bytes",
    "permission denied": "PermissionError: [Errno 13] Permission denied: '/data/runs/gpt3_345m'",
    # the stack that faulthandler dumps: megatron/core/datasets/gpt_dataset.py:_get_num_epochs
    "empty part of the data": '  File "site-packages/megatron/core/datasets/gpt_dataset.py", line 740 in '
    "_get_num_epochs\nhangs: no step for 600 s",
    # torch/nn/functional.py:embedding on a CPU
    "token ids beyond the vocabulary": "IndexError: index out of range in self",
    # megatron/training/checkpointing.py:2250
    "layout changed on resume": "RuntimeError: (TP, PP) mismatch after resume ((2, 1) vs (1, 1) from checkpoint): not "
    "supported for DistributedOptimizer with sharding type dp_reshardable.",
    # megatron/training/checkpointing.py:161
    "model changed on resume": "AssertionError: num_layers value from checkpoint (4) is not equal to the input "
    "argument value (2).",
    "crashed in native code": "rank 1 was killed by SIGSEGV",
    # torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp; github.com/NVIDIA/Megatron-LM/issues/1207
    "NCCL waited too long": "[rank1]:[E626 06:24:44 ProcessGroupNCCL.cpp:616] [Rank 1] Watchdog caught collective "
    "operation timeout: WorkNCCL(SeqNum=808, OpType=ALLREDUCE, NumelIn=98, NumelOut=98, Timeout(ms)=600000) ran for "
    "600020 milliseconds before timing out.",
    "hangs": "rank 1 hangs: no step for 600 s",
    # megatron/core/datasets/blended_megatron_dataset_config.py:136
    "--data-path without --split": "AssertionError: split must be provided when blend is not None",
    # cudaGetErrorString(cudaErrorECCUncorrectable), libcudart.so.13
    "defective GPU memory": "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
    # cudaGetErrorString(cudaErrorIllegalAddress), libcudart.so.13
    "illegal memory access": "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
    # the frames of megatron/training/checkpointing.py:2573; github.com/NVIDIA/Megatron-LM/issues/2339
    "GPU memory full while loading": """
  File "site-packages/megatron/training/checkpointing.py", line 2573, in load_checkpoint
    optimizer.load_state_dict(state_dict['optimizer'])
  File "site-packages/megatron/core/optimizer/distrib_optimizer.py", line 850, in load_state_dict
    torch.empty(
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
""",
    # ncclGetErrorWord of torch/csrc/distributed/c10d/NCCLUtils.cpp; libnccl.so.2
    "NCCL error": "torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils."
    "cpp:77, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.28.9\nncclSystemError: "
    "System call (e.g. socket, malloc) or external library call failed or device error.",
    # transformers/utils/hub.py:611, in megatron/core/tokenizers' own words
    "gated repository": "ValueError: Unable to instantiate HuggingFace AutoTokenizer for meta-llama/Meta-Llama-3-8B. "
    "Exception: You are trying to access a gated repo.",
    # megatron/core/dist_checkpointing/mapping.py:134
    "optimizer of an older Megatron": "megatron.core.dist_checkpointing.core.CheckpointingException: "
    "ShardedTensor.flattened_range is not supported.",
    # github.com/NVIDIA/Megatron-LM/issues/1490: saved at TP 4, loaded at TP 1
    "layout changed, slices saved as wholes": "megatron.core.dist_checkpointing.core.CheckpointingException: Global "
    "shape mismatch for loaded (torch.Size([1152, 1536])) and expected ((4608, 1536)) tensor for key "
    "layers.0.self_attention.wqkv.weight",
    # helpers/processes/loading.py, in which Megatron's words are (megatron/training/checkpointing.py:1690)
    "started from random weights": "gpt3_345m failed: Megatron could not find the metadata file /data/gpt/"
    "latest_checkpointed_iteration.txt and started from random weights, where step 50 was to be loaded",
    "loaded another checkpoint": "gpt3_345m failed: Megatron loaded step 7 from /data/gpt, where step 50 of this run "
    "was to be loaded",
    # helpers/processes/control.py, after what a healthy rank may have printed
    "supervisor killed": "Apex must be installed to use it\ntiny failed: the run's supervisor was killed or crashed",
    # helpers/processes/loading.py; torch's own words before it are of the damage, and may be any
    "checkpoint set aside": "ModuleNotFoundError: No module named 'collect_ons'\nrank 0 ended with exit code 1; the "
    "checkpoint of step 50 is damaged: __0_0.distcp holds other bytes than were written to it. It is set aside as "
    "damaged_iter_0000050",
    # github.com/NVIDIA/Megatron-LM/issues/1764; the arguments as 0.19.2 prints them
    "loss is not a number under context parallelism": """
[rank 0]   context_parallel_size ........................... 2
[rank 0]   context_parallel_ulysses ........................ False
ERROR:megatron.core.rerun_state_machine:Unexpected result nan on rank 0 at iteration #1 invocation #1 \
(message='found NaN in local forward loss calculation')
""",
}

LOGS = {**PROVOKED, **FROM_SOURCES}


def fix_of(name: str) -> str:
    return diagnosis.diagnose(LOGS[name]).fix


@pytest.mark.parametrize("name", LOGS)
def test_symptom_is_found_in_its_log(name):
    found = diagnosis.diagnose(LOGS[name])
    assert found is not None
    assert found.name == name
    assert found.line in " ".join(diagnosis.PREFIX.sub("", LOGS[name]).split())
    assert not re.search(r"\{\w+\}", found.cause + found.fix), "a group of the pattern was not filled in"


def test_every_symptom_has_a_log_and_there_are_enough_of_them():
    names = [symptom.name for symptom in SYMPTOMS]
    assert len(names) == len(set(names)) >= 20
    assert set(names) - set(LOGS) == {"unknown flag"}  # its log is made by Megatron's own parser, below
    assert set(LOGS) <= set(names)


@pytest.mark.parametrize("consequence", [symptom.name for symptom in CONSEQUENCES])
@pytest.mark.parametrize("cause", ["GPU memory full", "loss is not a number", "schedule changed on resume"])
def test_cause_comes_before_consequence(cause, consequence):
    for log in (LOGS[cause] + "\n" + LOGS[consequence], LOGS[consequence] + "\n" + LOGS[cause]):
        assert diagnosis.diagnose(log).name == cause


def test_killed_rank_comes_before_the_lost_connection():
    log = LOGS["lost a rank"] + LOGS["killed by the kernel"]
    assert diagnosis.diagnose(log).name == "killed by the kernel"


@pytest.mark.parametrize(
    "words",
    [
        "RuntimeError: DataLoader worker (pid 13604) is killed by signal: Killed. ",  # torch/utils/data/_utils
        "tiny failed: torchrun was killed by SIGKILL",  # helpers/processes/supervisor.py
    ],
)
def test_a_killed_process_of_a_rank_and_a_killed_torchrun_are_told_before_the_lost_connection(words):
    assert diagnosis.diagnose(LOGS["lost a rank"] + words).name == "killed by the kernel"


@pytest.mark.parametrize(
    ("words", "signal"),
    [
        ("rank 0 was killed by SIGTERM", "SIGTERM"),
        ("torchrun was killed by SIGINT", "SIGINT"),
        ("SignalException: Process 14588 got signal: 1", "SIGHUP"),
        ("rank 0 was killed by signal 40", "signal 40"),
    ],
)
def test_a_rank_that_was_ended_by_hand_is_not_one_that_only_lost_another(words, signal):
    """Its traceback is that of whatever it did when the signal came: of a receive, say."""
    found = diagnosis.diagnose(LOGS["lost a rank"] + words)
    assert found.name == "ended by a signal" and f"from outside ({signal}): " in found.cause


@pytest.mark.parametrize("words", ["rank 0 was killed by signal 6", "rank 1 was killed by SIGABRT"])
def test_a_rank_that_gave_up_by_itself_was_not_ended_by_anybody(words):
    log = LOGS["lost a rank"] + "malloc(): unaligned tcache chunk detected\nFatal Python error: Aborted\n" + words
    assert diagnosis.diagnose(log).name == "crashed in native code"


def test_a_hang_comes_before_the_crash_of_ending_it():
    assert diagnosis.diagnose("exitcode  : -11 (pid: 7)\nrank 1 hangs: no step for 600 s").name == "hangs"
    assert diagnosis.diagnose("Process 7 got signal: 15\nrank 1 hangs: no step for 600 s").name == "hangs"


def test_figures_of_the_log_stand_in_the_answer():
    assert "160" in diagnosis.diagnose(LOGS["schedule changed on resume"]).cause
    assert "divides 4" in diagnosis.diagnose(LOGS["heads do not divide"]).fix
    full, graph = (diagnosis.diagnose(LOGS[f"GPU memory full{beside}"]) for beside in ("", " beside a CUDA graph"))
    assert "--micro-batch-size" in full.fix and "cuda_graph" not in full.fix
    assert "38.78 GiB" in graph.cause and "cuda_graph=False" in graph.fix and full.fix in graph.fix


def test_a_changed_layout_is_told_from_a_changed_model():
    shapes = "Global shape mismatch for loaded (torch.Size({})) and expected ({}) tensor for key {}"
    layout, model = "layout changed, slices saved as wholes", "checkpoint of another model"
    cases = [
        ("[32, 1024]", "(64, 1024)", "embedding.word_embeddings.weight", layout),
        ("[2, 64, 128]", "(2, 64, 64)", "decoder.layers.self_attention.linear_proj.weight", layout),
        ("[64, 64]", "(128, 128)", "decoder.layers.0.mlp.linear_fc1.weight", model),  # both sides
        ("[4608, 1536]", "(6144, 1536)", "decoder.layers.0.self_attention.linear_qkv.weight", model),  # no whole factor
        ("[64]", "(128,)", "decoder.final_layernorm.weight", model),  # never cut
    ]
    for old, new, key, name in cases:
        assert diagnosis.diagnose(shapes.format(old, new, key)).name == name, key
    for name in (layout, "layout changed, one file a rank", "layout changed on resume"):
        advice = fix_of(name)
        assert "fresh=True" not in advice and "layout" in advice or "tensor-parallel size" in advice


def test_no_advice_splits_a_run_over_machines_into_several():
    for name in ("port taken", "processes do not divide", "machines did not meet"):
        assert "--standalone" in fix_of(name) and re.search("several|one machine", fix_of(name)), name


def test_memory_that_runs_full_while_loading_is_not_mended_by_a_smaller_batch():
    loading, training = (fix_of(f"GPU memory full{when}") for when in (" while loading", ""))
    assert "--micro-batch-size" in training and "--micro-batch-size" not in loading and "--no-load-optim" in loading


def test_nan_without_context_parallelism_is_not_blamed_on_it():
    alone = LOGS["loss is not a number under context parallelism"].replace("..... 2", "..... 1")
    assert diagnosis.diagnose(alone).name == "loss is not a number"


@pytest.mark.parametrize(
    "log",
    [
        "DistStoreError: Timed out after 6 seconds waiting for clients. 1/2 clients joined.",  # the first machine's
        "torch.distributed.DistNetworkError: The client socket has timed out after 5000ms while trying to connect to "
        "(localhost, 29612).",  # the second one's
    ],
)
def test_either_machine_says_that_they_did_not_meet(log):
    assert diagnosis.diagnose(log).name == "machines did not meet"


def test_warnings_do_not_count():
    warning = "UserWarning: CUDA initialization: The NVIDIA driver on your system is too old (found version 11000)."
    assert diagnosis.diagnose(f"/site-packages/torch/cuda/__init__.py:124: {warning}") is None
    assert diagnosis.diagnose(f"{warning}\n{LOGS['disk full']}").name == "disk full"


def test_unknown_flag_names_the_nearest_real_one(capsys):
    parser = argparse.ArgumentParser(prog="pretrain_gpt.py", add_help=False)
    for flag in megatron_parser.flags():
        parser.add_argument(flag)
    with pytest.raises(SystemExit):
        parser.parse_args(["--tensor-model-paralel-size", "2"])
    log = "".join(f"[rank 1] {line}\n" for line in capsys.readouterr().err.splitlines())
    found = diagnosis.diagnose(log)
    assert found.name == "unknown flag"
    assert "Did you mean --tensor-model-parallel-size instead of --tensor-model-paralel-size?" in found.fix


def test_flags_are_read_from_megatron_when_the_log_has_no_usage():
    found = diagnosis.diagnose("pretrain_gpt.py: error: unrecognized arguments: --nmu-layers 4 --zzzzzz")
    assert found.fix.endswith("Did you mean --num-layers instead of --nmu-layers?")


@pytest.mark.train
def test_log_of_a_healthy_run_shows_no_symptom(tiny_run):
    assert diagnosis.diagnose((tiny_run.path / "log.txt").read_text()) is None


@pytest.mark.parametrize("path", sorted(BROKEN.glob("*.txt")), ids=lambda path: path.stem)
def test_the_recorded_broken_runs_say_no_error_that_would_give_them_away(path):
    """They are there to be read by people: Megatron's own lines, and the command that made them."""
    head, *lines = path.read_text().splitlines()
    assert all("helpers/ranks/pretrain_gpt.py" in command for command in json.loads(head)["commands"])
    assert sum(logs.parse_step(line) is not None for line in lines) >= 30 and len(lines) <= 60
    assert diagnosis.diagnose("\n".join(lines)) is None


def test_table_of_symptoms():
    table = diagnosis.symptoms()
    assert list(table.columns) == ["in the log", "cause", "fix"] and len(table) == len(SYMPTOMS)


FULL_SHARED_MEMORY = {  # both from a run with /dev/shm filled to the last byte, which is no full disk
    "a lock": """
[rank0]:   File "/usr/lib/python3.12/multiprocessing/synchronize.py", line 57, in __init__
[rank0]:     sl = self._semlock = _multiprocessing.SemLock(
[rank0]:                          ^^^^^^^^^^^^^^^^^^^^^^^^^
[rank0]: OSError: [Errno 28] No space left on device
""",
    "a batch": """
[rank0]:     return cls._new_using_fd_cpu(size)
[rank0]: RuntimeError: unable to allocate shared memory(shm) for file </torch_5545_220150380_0>: Resource temporarily \
unavailable (11)
""",
}


@pytest.mark.parametrize("log", FULL_SHARED_MEMORY.values(), ids=FULL_SHARED_MEMORY)
def test_a_full_shared_memory_is_no_full_disk(log):
    assert diagnosis.diagnose(log).name == "/dev/shm too small"
