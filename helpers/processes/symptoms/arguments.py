"""Runs that die of their flags."""

from helpers.processes.symptoms.symptom import Symptom

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
        "Start a multiple of {size} processes, or lower one of the three sizes. On several machines leave --standalone "
        "out: it counts the processes of one alone.",
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
        "Give --eval-interval a number (and --eval-iters 0 for no evaluation).",
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
        "--data-path without --split",
        r"split must be provided when blend is not None",
        "--data-path was given without --split: Megatron does not know which documents are for training.",
        "Add --split 90,5,5 (training, validation, test), or give --train-data-path and --valid-data-path instead.",
    ),
    Symptom(
        "CUDA graph and NaN",
        r"--no-check-for-nan-in-loss-and-grad should be set with --cuda-graph-impl",
        "A step recorded as one CUDA graph cannot stop to look whether the loss is still a number.",
        "Give both flags: `recipe.with_(cuda_graph=True)` does.",
    ),
)
