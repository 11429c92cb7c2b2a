"""Known ways in which a training run dies: what its log says, why, and what to do.

The order is the order of blame. A log often tells of several troubles; the first row here that fits is the answer.
Rows of `CONSEQUENCES` come last: they tell that some rank was lost, not why.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Symptom:
    """One row: `pattern` is searched in the whole log; its named groups may stand in `cause` and `fix` as {name}."""

    name: str
    pattern: str
    cause: str
    fix: str

    def search(self, log: str) -> re.Match | None:
        return re.search(self.pattern, log, re.MULTILINE)


INSTALL = "Install what the project pins: `uv sync --extra gpu` (8 minutes, no CUDA toolkit needed)."
LESS_MEMORY = (
    "Lower, in this order: --micro-batch-size; then recompute activations (--recompute-granularity selective, then "
    "full); then split the model (--use-distributed-optimizer, tensor parallelism); then --seq-length."
)

ARGUMENTS = (
    Symptom(
        "unknown flag",
        r"error: unrecognized arguments: (?P<flags>.+)",
        "Megatron has no such flag: {flags}",
        "Correct the spelling or take it out.",
    ),
    Symptom(
        "flag with a wrong value",
        r"error: (?:argument (?P<flag>-[^:]+)|ambiguous option): (?P<complaint>.+)",
        "A flag was given a value that Megatron does not accept: {complaint}",
        "Look at the line that ends in `error:` in the log and correct that flag.",
    ),
    Symptom(
        "heads do not divide",
        r"num_attention_heads \((?P<heads>\d+)\) must be a multiple of tensor_model_parallel_size \((?P<size>\d+)\)",
        "Tensor parallelism gives each rank whole attention heads: {heads} heads cannot be dealt out to {size} ranks.",
        "Choose a tensor-parallel size that divides {heads}.",
    ),
    Symptom(
        "processes do not divide",
        r"world size \((?P<ranks>\d+)\) is not divisible by total_model_size \(total_model_size=(?P<size>\d+)\)",
        "One copy of the model takes {size} ranks (TP × PP × CP), and {ranks} is not a multiple of that.",
        "Start a multiple of {size} processes, or lower one of the three sizes.",
    ),
    Symptom(
        "batch does not divide",
        r"(?P<words>global.batch.size \(\d+\) (?:must be|is not) divisible by .+)",
        "The batch cannot be dealt out evenly: {words}.",
        "Make --global-batch-size a multiple of --micro-batch-size × data-parallel ranks.",
    ),
    Symptom(
        "evaluation without an interval",
        r"unsupported operand type\(s\) for //: 'int' and 'NoneType'",
        "Megatron divides by --eval-interval, and its default is None.",
        "Give --eval-interval a number (and --eval-iters 0 if nothing shall be evaluated).",
    ),
    Symptom(
        "--save without an interval",
        r"assert args\.save_interval is not None",
        "--save was given without --save-interval.",
        "Add --save-interval, the steps between two checkpoints.",
    ),
    Symptom(
        "TE cross entropy",
        r"Transformer Engine cross entropy loss fusion is disabled",
        "Megatron 0.19 refuses Transformer Engine's fused cross entropy, which it found unstable.",
        "Use --cross-entropy-fusion-impl native, or drop --cross-entropy-loss-fusion.",
    ),
    Symptom(
        "CUDA_DEVICE_MAX_CONNECTIONS must be 1",
        r"require setting the environment variable CUDA_DEVICE_MAX_CONNECTIONS to 1",
        "Before Blackwell, tensor and context parallelism need kernels to start in the order they were issued.",
        "export CUDA_DEVICE_MAX_CONNECTIONS=1 (`recipe.command(data)` prints it where it is needed).",
    ),
    Symptom(
        "CUDA_DEVICE_MAX_CONNECTIONS must not be 1",
        r"FSDP (?:always )?requires CUDA_DEVICE_MAX_CONNECTIONS",
        "FSDP needs several queues to the GPU, and CUDA_DEVICE_MAX_CONNECTIONS=1 leaves it one.",
        "unset CUDA_DEVICE_MAX_CONNECTIONS.",
    ),
    Symptom(
        "CUDA graph and NaN",
        r"--no-check-for-nan-in-loss-and-grad should be set with --cuda-graph-impl",
        "A step recorded as one CUDA graph cannot stop to look whether the loss is still a number.",
        "Give both flags: `recipe.with_(cuda_graph=True)` does.",
    ),
)

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

RESOURCES = (
    Symptom(
        "/dev/shm too small",
        r"/dev/shm/nccl-\S+|insufficient shared memory \(shm\)|unable to (?:write to|mmap|resize) file </torch_\S+",
        "Processes of one machine talk through /dev/shm, and it is full. Docker gives a container 64 MB.",
        "Start the container with --ipc=host or --shm-size=8g.",
    ),
    Symptom(
        "disk full",
        r"No space left on device|\[Errno 28\]|Disk quota exceeded|PytorchStreamWriter failed writing file|"
        r"inline_container\.cc:\d+\] \. unexpected pos",
        "The disk (or your quota) is full.",
        "Free space: run.delete_checkpoints() of old runs. The last whole checkpoint still loads.",
    ),
    Symptom(
        "GPU memory full beside a CUDA graph",
        r"CUDA out of memory.*with (?P<size>[\d.]+ \w+) allocated in private pools",
        "The GPU's memory is full, and a CUDA graph keeps {size} of it, its activations', to itself.",
        "Try cuda_graph=False first. Not enough? " + LESS_MEMORY,
    ),
    Symptom(
        "GPU memory full",
        r"CUDA out of memory(?:\. Tried to allocate (?P<size>[\d.]+ \w+))?|CUDA error: out of memory|"
        r"CUBLAS_STATUS_ALLOC_FAILED",
        "The GPU's memory is full.",
        LESS_MEMORY,
    ),
    Symptom(
        "main memory full",
        r"can't allocate memory: you tried to allocate|Cannot allocate memory|^MemoryError",
        "The machine's main memory is full.",
        "Lower --micro-batch-size or start fewer ranks.",
    ),
    Symptom(
        "port taken",
        r"EADDRINUSE|[Aa]ddress already in use",
        "Another program listens on the port through which the ranks meet.",
        "Use torchrun --standalone, which takes a free one, or another --master-port.",
    ),
    Symptom(
        "a file where a folder should be",
        r"NotADirectoryError: .*: '(?P<path>.+?)'",
        "A file stands where the run wants a folder: {path}",
        "Move the file away, or choose another folder.",
    ),
    Symptom(
        "too many open files",
        r"Too many open files",
        "The process reached its limit of open files.",
        "ulimit -n 65536 before the start.",
    ),
    Symptom(
        "permission denied",
        r"PermissionError: \[Errno 13\] Permission denied(?:: (?P<path>\S+))?",
        "The run may not write or read {path}",
        "Give yourself the right to it (chown), or choose another folder with MEGATRON_TOUR_RUNS.",
    ),
)

DATA_AND_CHECKPOINTS = (
    Symptom(
        "empty part of the data",
        r"in _get_num_epochs",
        "A part of the corpus (train, validation or test) holds no document, and Megatron counts its epochs for ever.",
        "Choose a --split that leaves each part some documents, or take a larger corpus.",
    ),
    Symptom(
        "corpus files missing",
        r"idx and \.bin files cannot be found at the path prefix (?P<prefix>\S+)",
        "There is no {prefix}.bin or {prefix}.idx.",
        "Run corpus.prepare() again, and give --data-path without the ending.",
    ),
    Symptom(
        "tokenizer files missing",
        r"Unable to instantiate HuggingFace AutoTokenizer for (?P<name>\S+)\. Exception",
        "The tokenizer {name} is neither a folder here nor to be had from the hub.",
        "Use corpus.prepare(tokenizer=…), which keeps the tokenizer on disk, and its folder as --tokenizer-model.",
    ),
    Symptom(
        "token ids beyond the vocabulary",
        r"IndexError: index out of range in self|srcIndex < srcSelectDimSize|vectorized_gather_kernel: .*out of bounds",
        "The corpus holds a token id that the embedding has no row for.",
        "Prepare the corpus with the model's tokenizer, or raise --padded-vocab-size.",
    ),
    Symptom(
        "old checkpoint",
        r"Weights only load failed",
        "The checkpoint holds Python objects besides numbers, and torch 2.6 and later refuse to run them.",
        "If you trust its author, export TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1; then save it again as torch_dist.",
    ),
    Symptom(
        "schedule changed on resume",
        r"class input value (?P<new>\S+) and checkpoint ?value (?P<old>\S+) for (?P<what>.+?) do not match",
        "The checkpoint was trained on another schedule: {what} was {old} and is {new} now.",
        "Keep --train-iters and the learning-rate flags; to stop early use --exit-interval. "
        "To change the schedule on purpose: --override-opt-param-scheduler.",
    ),
    Symptom(
        "layout changed on resume",
        r"not supported for DistributedOptimizer with sharding type",
        "The distributed optimizer's state was saved for another TP × PP layout.",
        "Save and load with --dist-ckpt-optim-fully-reshardable, or load the weights alone (--no-load-optim).",
    ),
    Symptom(
        "checkpoint of another model",
        r"Global shape mismatch for loaded \(torch\.Size\((?P<old>.+?)\)\) and expected \((?P<new>\(.+?\))\) "
        r"tensor for key (?P<key>\S+)",
        "The checkpoint is of a model of another size: {key} is {old} there and {new} here.",
        "Start over (fresh=True), or give the sizes that the checkpoint was trained with.",
    ),
    Symptom(
        "model changed on resume",
        r"(?P<what>\w+) value from checkpoint \((?P<old>.+?)\) is not equal to "
        r"the input argument value \((?P<new>.+?)\)\.",
        "The checkpoint is of another model: {what} was {old} and is {new} now.",
        "Start over (fresh=True), or give the old value.",
    ),
    Symptom(
        "W&B without login",
        r"No API key configured|api_key not configured",
        "W&B's online mode needs an account, and nobody has logged in on this machine.",
        "wandb login, or WANDB_MODE=offline, which needs no account.",
    ),
    Symptom(
        "loss is not a number",
        r"Unexpected result (?P<value>nan|inf).*found (?:NaN|Inf) in local (?P<where>forward loss|grad norm)",
        "Training diverged: the {where} became {value}.",
        "Lower --lr or warm up longer (--lr-warmup-iters), keep --clip-grad 1.0, prefer bf16 to fp16, "
        "and look at the loss just before: a jump there points at the learning rate.",
    ),
)

CONSEQUENCES = (
    Symptom(  # before the crashes: whoever hangs is ended, and some libraries crash when they are
        "hangs",
        r"hangs: no step for (?P<seconds>\d+) s",
        "No step was finished for {seconds} s.",
        "The traceback shows where that rank stands. If a step really takes so long, raise hang_timeout_seconds.",
    ),
    Symptom(
        "killed by the kernel",
        r"was killed by SIGKILL|exitcode\s+: -9 |Signal 9 \(SIGKILL\)",
        "Somebody killed the process without warning: most often Linux itself, when main memory was full.",
        "See `dmesg | grep -i oom`. If it was that: lower --micro-batch-size, the number of ranks or --num-workers.",
    ),
    Symptom(
        "crashed in native code",
        r"was killed by (?P<signal>SIGSEGV|SIGBUS|SIGILL|SIGFPE)|exitcode\s+: -(?:11|7|4|8) ",
        "A compiled library crashed. After an update this is most often two versions that do not fit each other.",
        "Run environment.check(). SIGBUS: /dev/shm is too small. SIGILL: the wheel is for another processor.",
    ),
    Symptom(
        "NCCL waited too long",
        r"Watchdog caught collective operation timeout|Some NCCL operations have failed or timed out",
        "One rank did not come to a collective operation that the others waited in: it hangs, died, or was slow.",
        "Look for the rank whose last line in the log is the oldest. If it was only slow (a large checkpoint, a cold "
        "disk), raise --distributed-timeout-minutes.",
    ),
    Symptom(
        "gloo waited too long",
        r"Timed out waiting \d+ms for (?:send|recv) operation",
        "One rank did not answer the others: it hangs, died, or was slow.",
        "Look for the rank whose last line in the log is the oldest.",
    ),
    Symptom(
        "lost a rank",
        r"Connection closed by peer|Connection reset by peer|Broken pipe|remote process exited",
        "This rank only lost the connection to another one, which died first without a word.",
        "Look in the log for the rank that stops first; if it was killed, main memory was probably full.",
    ),
)

SYMPTOMS = (*ARGUMENTS, *INSTALLATION, *RESOURCES, *DATA_AND_CHECKPOINTS, *CONSEQUENCES)
