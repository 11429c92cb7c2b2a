"""Runs that die of memory, disk, sockets, limits."""

from helpers.processes.symptoms.symptom import Symptom

LESS_MEMORY = (
    "Lower, in this order: --micro-batch-size; then recompute activations (--recompute-granularity selective, then "
    "full); then split the model (--use-distributed-optimizer, tensor parallelism); then --seq-length."
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
