"""Runs that die of memory, disk, sockets, limits."""

from helpers.processes.symptoms.symptom import Symptom

LESS_MEMORY = (
    "Lower, in this order: --micro-batch-size; then recompute activations (--recompute-granularity selective, then "
    "full); then split the model (--use-distributed-optimizer, tensor parallelism); then --seq-length."
)

RESOURCES = (
    Symptom(
        "defective GPU memory",
        r"uncorrectable ECC error encountered",
        "The GPU's memory has an error that it could not correct: the hardware's fault, not the run's.",
        "Leave this GPU out with CUDA_VISIBLE_DEVICES and show `nvidia-smi -q -d ECC` to whoever looks after the "
        "machine: a reset or a reboot may mend it. The last whole checkpoint still loads.",
    ),
    Symptom(
        "/dev/shm too small",
        r"/dev/shm/nccl-\S+|insufficient shared memory \(shm\)|unable to (?:write to|mmap|resize) file </torch_\S+|"
        r"unable to allocate shared memory ?\(shm\) for file </torch_\S+|"
        r"_multiprocessing\.SemLock\([\s^~]*OSError: \[Errno 28\]",
        "Processes of one machine talk through /dev/shm, and it is full. Docker gives a container 64 MB.",
        "Start the container with --ipc=host or --shm-size=8g.",
    ),
    Symptom(
        "/dev/shm closed",
        r"_multiprocessing\.SemLock\([\s^~]*\w+: \[Errno (?:2|13|30|38)\] (?P<why>.+)|"
        r"unable to open shared memory object </torch_\S+> in read-write mode: (?:Read-only|Permission|No such)",
        "Processes of one machine talk through /dev/shm, and nothing can be written there.",
        "Mount it for writing (docker run --ipc=host, or --shm-size=8g). On a CPU --num-workers 0 does without.",
    ),
    Symptom(
        "limit on the size of files",
        r"\[Errno 27\]|File too large|File size limit exceeded",
        "A file came to the largest size that this shell (`ulimit -f`) or the file system (FAT: 4 GB) allows.",
        "`ulimit -f unlimited` in the shell that starts Jupyter, or torchrun; on a cluster its job system sets the "
        "limit. The last whole checkpoint still loads.",
    ),
    Symptom(
        "disk full",
        r"No space left on device|\[Errno 28\]|Disk quota exceeded|PytorchStreamWriter failed writing file|"
        r"inline_container\.cc:\d+\] \. unexpected pos",
        "The disk (or your quota) is full.",
        "Free space: run.delete_checkpoints() of old runs. The last whole checkpoint still loads.",
    ),
    Symptom(
        "GPU memory full while loading",
        r"in (?:load_checkpoint|_load_base_checkpoint|_load_global_dist_base_checkpoint)\n(?:.*\n){0,80}?.*"
        r"CUDA out of memory",
        "The GPU's memory ran full while the checkpoint was loaded: for a moment the optimizer's state is there twice.",
        "Load without the optimizer (--no-load-optim) to see whether training itself fits. To keep it: spread it over "
        "more ranks (--use-distributed-optimizer, more data parallelism); with --dist-ckpt-optim-fully-reshardable "
        "add --distrib-optim-fully-reshardable-mem-efficient. A smaller batch changes nothing here.",
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
        "On one machine: torchrun --standalone, which takes a free one. On several: another --master-port, the same on "
        "each; --standalone there starts a run of its own on every machine.",
    ),
    Symptom(
        "hosts that do not reach each other",
        r"connectFullMesh failed|the name of this host, stands for",
        "gloo's ranks do not reach each other. Most often a host's own name stands for 127.0.1.1 in its /etc/hosts, as "
        "Debian and Ubuntu write it: then it has the others call that address, where they only find themselves.",
        "recipes.Nodes(interface=…), or export GLOO_SOCKET_IFNAME=<the network between the hosts> on each: `ip route` "
        "names it.",
    ),
    Symptom(
        "a network that is not there",
        r"Unable to find address for: \S+|_SOCKET_IFNAME=\S+, and \S+ has no such network",
        "GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME names a network that a host does not have.",
        "`ip link` on that host shows what its networks are called. Where hosts call them differently, export the "
        "variable on each host by itself.",
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
