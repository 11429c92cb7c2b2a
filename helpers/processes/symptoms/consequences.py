"""Words of ranks that lost another one: they tell that one died, not why."""

from helpers.processes.symptoms.symptom import Symptom

UNATTENDED = Symptom(  # told by whoever looks at the run next (helpers/processes/control.py)
    "supervisor killed",
    r"the run's supervisor was killed or crashed",
    "The process that looks after the run was killed without warning: by hand, or by Linux when main memory was full. "
    "The ranks were ended with it.",
    "Start the same cell again: it goes on after the last checkpoint, and begins at step 1 where there is none. If "
    "`dmesg | grep -i oom` tells of this moment, lower --micro-batch-size or the number of ranks first.",
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
        r"was killed by (?:SIGKILL|signal 9\b)|exitcode\s+: -9 |Signal 9 \(SIGKILL\)|is killed by signal: Killed",
        "Somebody killed the process without warning: most often Linux itself, when main memory was full.",
        "See `dmesg | grep -i oom`. If it was that: lower --micro-batch-size, the number of ranks or --num-workers.",
    ),
    Symptom(  # after the hang: whoever hangs is ended so, too
        "ended by a signal",
        r"(?:was killed by|[Pp]rocess \d+ got signal:) "
        r"(?P<signal>(?!SIG(?:ILL|ABRT|BUS|FPE|SEGV)\b)SIG\w+|(?:signal )?(?!(?:4|6|7|8|11)\b)\d+)",
        "Somebody ended the process from outside ({signal}): `kill`, Ctrl-C in a terminal, a job system.",
        "Start the same cell again. On a cluster, look whether the job's time or memory was used up.",
    ),
    Symptom(
        "illegal memory access",
        r"an illegal memory access was encountered",
        "A GPU kernel read or wrote outside its memory. The traceback shows only where it was noticed: kernels run "
        "later than they are started.",
        "Start again with CUDA_LAUNCH_BLOCKING=1, which names the true line. Then leave out flash-attn, fused kernels "
        "and CUDA graphs, one at a time. An error that moves from run to run may be the GPU's: `dcgmi diag -r 3`.",
    ),
    Symptom(
        "crashed in native code",
        r"was killed by (?:SIGSEGV|SIGBUS|SIGILL|SIGFPE|SIGABRT|signal (?:4|6|7|8|11)\b)|exitcode\s+: -(?:11|7|6|4|8) ",
        "A compiled library crashed, or found its memory spoilt and gave up (SIGABRT). After an update this is most "
        "often two versions that do not fit each other.",
        "Run environment.check(). SIGBUS: /dev/shm is too small. SIGILL: the wheel is for another processor.",
    ),
    Symptom(
        "machines did not meet",
        r"RendezvousTimeoutError|Timed out after \d+ seconds waiting for clients\. \d+/\d+ clients joined|"
        r"client socket has timed out after \d+ms while trying to connect",
        "Not all machines came to the meeting point in time: one was not started, cannot reach the first, or asks for "
        "another address or port.",
        "Start the same command on each: the same --nnodes, --master-addr and --master-port (or --rdzv-endpoint), with "
        "--node-rank 0, 1, …; `nc -vz <address> <port>` from each tells whether it is reached. --standalone is for "
        "one machine.",
    ),
    Symptom(
        "NCCL error",
        r"nccl(?:UnhandledCudaError|SystemError|InternalError|InvalidUsage): |NCCL error.*unhandled \w+ error",
        "NCCL, which carries the collectives between GPUs, could not set up or use a connection.",
        "Start again with NCCL_DEBUG=INFO: the first line with WARN names what failed. Most often: a small /dev/shm "
        "(start the container with --ipc=host), a network card that does not reach the other machines "
        "(NCCL_SOCKET_IFNAME), InfiniBand that does not work (NCCL_IB_DISABLE=1), two ranks on one GPU.",
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
