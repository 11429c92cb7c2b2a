"""Runs that die of what is installed, and of what is not."""

from helpers.processes.symptoms.symptom import Symptom

INSTALL = "Install what the project pins: `uv sync --extra gpu` (8 minutes, no CUDA toolkit needed)."

INSTALLATION = (
    Symptom(
        "gradient accumulation fusion",
        r"called with gradient_accumulation_fusion set|No module named 'fused_weight_gradient_mlp_cuda'",
        "Adding gradients inside the matrix product is a CUDA kernel of apex, which is not installed.",
        "Add --no-gradient-accumulation-fusion. It costs a few percent of speed, not correctness.",
    ),
    Symptom(
        "masked softmax fusion",
        r"No module named 'scaled_(?:masked_softmax|upper_triang_masked_softmax|softmax)_cuda'",
        "On a GPU, Megatron's own attention (--transformer-impl local) wants a softmax kernel of apex, which is not "
        "installed.",
        "Add --no-masked-softmax-fusion, as the recipes do, or use --transformer-impl transformer_engine.",
    ),
    Symptom(
        "apex missing",
        r"No module named 'apex|Apex must be installed|persist_layer_norm not supported by torch",
        "This layer norm is a kernel of apex, which does not come with pip.",
        "Use --transformer-impl transformer_engine on a GPU, or add --no-persist-layer-norm to the local layers.",
    ),
    Symptom(
        "flash-attention built for another torch",
        r"flash_attn\S*\.so: undefined symbol",
        "The flash-attn package was compiled against another version of torch.",
        "pip uninstall flash-attn: Transformer Engine brings its own fused attention (cuDNN).",
    ),
    Symptom(
        "two cuDNNs",
        r"libcudnn\w*\.so\S*: (?:undefined symbol|cannot open)|CUDNN_STATUS_SUBLIBRARY_\w+",
        "Transformer Engine found the system's cuDNN before the one that torch brought, and the two do not fit.",
        "export CUDNN_HOME=\"$(python -c 'import nvidia.cudnn as c; print(c.__path__[0])')\" before the start.",
    ),
    Symptom(
        "torch was not imported first",
        r"libnccl\.so\.2: cannot open shared object file",
        "transformer_engine was imported before torch, which loads NCCL for it.",
        "Import torch first.",
    ),
    Symptom(
        "Transformer Engine built for another torch",
        r"transformer_engine\S*\.so: undefined symbol",
        "Transformer Engine was compiled against another version of torch or CUDA.",
        "Build it against this torch: " + INSTALL,
    ),
    Symptom(
        "overlapped tensor parallelism",
        r"Tensor Parallel Communication/GEMM Overlap optimization needs|in initialize_ub$|"
        r"An error occurred in MPI_Init",
        "With --tp-comm-overlap Transformer Engine exchanges tensors through buffers of its own, and they could not be "
        "set up.",
        "Use Transformer Engine 1.9 or newer on a GPU, --tp-comm-bootstrap-backend nccl, and all tensor-parallel ranks "
        "on one machine. Or leave --tp-comm-overlap out: it changes the speed, not the result.",
    ),
    Symptom(
        "Transformer Engine missing",
        r"No module named 'transformer_engine|TESpecProvider\(\)[\s^]+TypeError: 'NoneType' object is not callable",
        "--transformer-impl transformer_engine was asked for, and Transformer Engine is not installed.",
        INSTALL + " On a CPU: --transformer-impl local.",
    ),
    Symptom(
        "triton missing",
        r"No module named 'triton'|Cannot find a working triton installation",
        "torch.compile writes its GPU kernels with triton, which is not installed.",
        "Reinstall torch from its Linux wheel, which brings triton, or export TORCHDYNAMO_DISABLE=1.",
    ),
    Symptom(
        "no C compiler for triton",
        r"Failed to find C compiler",
        "triton compiles a small C program at the first step and found no compiler.",
        "apt-get install gcc (or set CC), or export TORCHDYNAMO_DISABLE=1.",
    ),
    Symptom(
        "Megatron's data helpers have no Makefile",
        r"Failed to compile the C\+\+ dataset helper|No targets specified and no makefile found",
        "Megatron compiles its data helpers at each start, and the wheel has the compiled ones but no Makefile.",
        "Start through helpers/ranks/pretrain_gpt.py, which uses the compiled ones.",
    ),
    Symptom(
        "Megatron too old",
        r"No module named 'megatron\.training'",
        "This megatron-core has no training loop; pip takes 0.16 when Python is older than 3.12.",
        "Use Python 3.12 and megatron-core 0.19.2.",
    ),
    Symptom(
        "nvidia-resiliency-ext missing",
        r"nvidia_resiliency_ext is (?:required|not installed)|nvidia-resiliency-ext`? installation is required|"
        r"No module named 'nvidia_resiliency_ext",
        "This way of writing checkpoints is done by NVIDIA's package nvidia-resiliency-ext, which is not installed.",
        "Leave out --non-persistent-ckpt-type local; with --async-save use --async-strategy mcore. Or "
        "`uv pip install nvidia-resiliency-ext`.",
    ),
    Symptom(
        "package missing",
        r"ModuleNotFoundError: No module named '(?P<module>[\w.]+)'",
        "The Python package {module} is not installed in the environment that torchrun uses.",
        "uv sync, and start the notebook with `uv run jupyter lab`.",
    ),
    Symptom(
        "driver too old",
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient for CUDA runtime version",
        "The NVIDIA driver is older than the CUDA version that torch was built for.",
        "Update the driver (CUDA 13 needs 580 or newer), or use a container made for your driver.",
    ),
    Symptom(
        "no kernel for this GPU",
        r"no kernel image is available for execution on the device",
        "This torch or Transformer Engine has no code for your GPU's generation.",
        "Use a torch wheel that names your GPU in torch.cuda.get_arch_list(), and build Transformer Engine again.",
    ),
    Symptom(
        "no GPU",
        r"Found no NVIDIA driver on your system|No CUDA GPUs are available|only supported with GPUs, no GPUs found",
        "The program looked for a GPU, and there is none that it may use.",
        "export MEGATRON_CPU=1 to train on the CPU; with a GPU, look at nvidia-smi and CUDA_VISIBLE_DEVICES.",
    ),
    Symptom(
        "more ranks than GPUs",
        r"invalid device ordinal|Duplicate GPU detected",
        "There are more processes than visible GPUs.",
        "Lower --nproc-per-node, or let CUDA_VISIBLE_DEVICES name more GPUs.",
    ),
    Symptom(
        "no FP8 here",
        r"Device compute capability (?P<needed>[\d.]+) or higher required for \w+ execution",
        "This number format needs a GPU of compute capability {needed} or higher.",
        "Drop --fp8-format and train in bf16.",
    ),
)
