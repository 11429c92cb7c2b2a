"""Runs that die of a corpus or a checkpoint."""

import re

from helpers.processes.symptoms.symptom import Symptom

LOWER_LR = (
    "Lower --lr or warm up longer (--lr-warmup-iters), keep --clip-grad 1.0, prefer bf16 to fp16, and look at the loss "
    "just before: a jump there points at the learning rate."
)


def _is_a_ranks_slice(match: re.Match) -> bool:
    """Whether one shape is the other with one side cut into equal parts, of a tensor that tensor parallelism cuts."""
    shapes = [[int(side) for side in re.findall(r"\d+", match[name])] for name in ("old", "new")]
    if len(shapes[0]) != len(shapes[1]) or re.search("position_embeddings|norm", match["key"]):
        return False
    sides = [sorted(pair) for pair in zip(*shapes, strict=True) if pair[0] != pair[1]]
    return len(sides) == 1 and sides[0][0] > 0 and sides[0][1] % sides[0][0] == 0


SHAPES = (
    r"Global shape mismatch for loaded \(torch\.Size\((?P<old>.+?)\)\) and expected \((?P<new>\(.+?\))\) "
    r"tensor for key (?P<key>\S+)"
)

SET_ASIDE = Symptom(
    "checkpoint set aside",
    r"the checkpoint of step (?P<step>\d+) is damaged: (?P<why>.+?)\. It is set aside as (?P<aside>damaged_\w+)",
    "The checkpoint of step {step} is damaged: {why}. The disk, a copy or a power failure did that; the model and the "
    "flags are not to blame.",
    "Start the same cell again: it goes on after the last checkpoint that is whole. {aside} holds what is left of the "
    "damaged one, and may be deleted.",
)

DATA_AND_CHECKPOINTS = (
    Symptom(
        "empty part of the data",
        r"in _get_num_epochs",
        "A part of the corpus (train, validation or test) holds no document, and Megatron counts its epochs forever.",
        "Choose a --split that leaves each part some documents, or take a larger corpus.",
    ),
    Symptom(
        "corpus files missing",
        r"idx and \.bin files cannot be found at the path prefix (?P<prefix>\S+)",
        "There is no {prefix}.bin or {prefix}.idx.",
        "Run corpus.prepare() again, and give --data-path without the ending.",
    ),
    Symptom(
        "gated repository",
        r"You are trying to access a gated repo|is a gated repository|Cannot access gated repo",
        "Its owner lets in only those who have asked, and this machine has shown no token of such a person.",
        "Ask for access on its page at huggingface.co, then `hf auth login` or export HF_TOKEN. Or take a tokenizer "
        "that is free: weights that are trained from scratch need no particular one.",
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
        "export TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 loads them, and lets the file run any program as you: only for one "
        "whose author you trust. Then save it again as torch_dist.",
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
        "Load it once more in its own layout, with --dist-ckpt-optim-fully-reshardable, and save: from then on, with "
        "that flag, any layout loads it. Or load the weights alone (--no-load-optim).",
    ),
    Symptom(
        "layout changed, one file a rank",
        r"(?P<what>\w+_model_parallel_size) value from checkpoint \((?P<old>\d+)\) is not equal to "
        r"the input argument value \((?P<new>\d+)\)\.",
        "The same model in another layout: {what} was {old} and is {new} now, and the format `torch` keeps a file for "
        "each rank of its own layout.",
        "Start with the old layout. To change it: load once in the old one with --ckpt-convert-format torch_dist "
        "--ckpt-convert-save FOLDER, then start the new one with --load FOLDER/torch_dist.",
    ),
    Symptom(
        "layout changed, slices saved as wholes",
        SHAPES,
        "{key} is {old} there and {new} here: one side differs, by a whole factor, as when tensor parallelism changes "
        "and the checkpoint was written by code that calls each rank's slice the whole tensor.",
        "Start with the tensor-parallel size that it was saved with: Megatron's own layers save wholes, which load at "
        "any size (the optimizer's with --dist-ckpt-optim-fully-reshardable); layers of your own need a "
        "sharded_state_dict that says how they are cut. If you changed --ffn-hidden-size, --num-query-groups or the "
        "vocabulary, give the old one.",
        _is_a_ranks_slice,
    ),
    Symptom(
        "checkpoint of another model",
        SHAPES,
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
        "optimizer of an older Megatron",
        r"ShardedTensor\.flattened_range is not supported",
        "The optimizer's state lies there flattened, as Megatron-Core before 0.14 wrote it; newer ones read only the "
        "weights of such a checkpoint.",
        "Load the weights alone: --no-load-optim. A script of your own that saves so: choose the sharding type "
        "dp_reshardable or fully_reshardable.",
    ),
    Symptom(
        "no optimizer in the checkpoint",
        r"Unable to load optimizer from checkpoint (?P<path>\S+)\. Specify --no-load-optim",
        "{path} holds no optimizer state that fits: it was saved without (--no-save-optim) or by another --optimizer.",
        "Load the weights alone (--no-load-optim; --finetune begins at step 0 besides), or give the old --optimizer.",
    ),
    Symptom(
        "no checkpoint to load",
        r"'--exit-on-missing-checkpoint' set|No checkpoint found in load directory or pretrained directory",
        "--load or --pretrained-checkpoint names a folder without latest_checkpointed_iteration.txt. With "
        "--exit-on-missing-checkpoint Megatron then ends with exit code 0, which looks like success.",
        "Give the folder in which latest_checkpointed_iteration.txt lies, not one of its iter_ folders.",
    ),
    Symptom(
        "started from random weights",
        r"could not find the metadata file (?P<tracker>\S+) and started from random weights",
        "Megatron found no {tracker}, said so in one line of the log and went on without a checkpoint: we ended it.",
        "Give --load the folder in which that file lies, not one of its iter_ folders. In a command of your own "
        "--exit-on-missing-checkpoint stops Megatron there.",
    ),
    Symptom(
        "loaded another checkpoint",
        r"Megatron loaded step (?P<loaded>\d+) from (?P<folder>\S+), where step (?P<step>\d+)",
        "The run has a checkpoint of step {step} of its own, and its flags made Megatron load {folder} instead.",
        "Take --load and --ckpt-step out of extra_flags. To begin with somebody's weights: --pretrained-checkpoint, "
        "which counts only as long as the run has no checkpoint of its own.",
    ),
    Symptom(
        "damaged checkpoint",
        r"PytorchStreamReader failed|CheckpointException ranks:[\s\S]{0,8000}?EOFError",
        "A file of the checkpoint is cut off or damaged: the disk was full, or a copy was broken off.",
        "Move that iter_ folder away and write the step of the one before into latest_checkpointed_iteration.txt. "
        "launch.train does so by itself with one of its own.",
    ),
    Symptom(
        "W&B without login",
        r"No API key configured|api_key not configured",
        "W&B's online mode needs an account, and nobody has logged in on this machine.",
        "wandb login, or WANDB_MODE=offline, which needs no account.",
    ),
    Symptom(
        "loss is not a number under context parallelism",
        r"context_parallel_size \.+ (?P<ranks>[2-9]|\d{2,})\n[\s\S]*?"
        r"Unexpected result (?P<value>nan|inf).*found (?:NaN|Inf) in local (?P<where>forward loss|grad norm)",
        "The {where} became {value}, with each sequence cut over {ranks} ranks. Where padding masks every token of one "
        "rank, its loss is a sum over nothing divided by nothing, whatever the learning rate is.",
        "Run the same batch with --context-parallel-size 1. A number there: pad less or pack sequences, and let your "
        "loss divide by at least one token, as Megatron 0.19 does (pipeline_parallel/schedules.py). No number either: "
        + LOWER_LR[0].lower()
        + LOWER_LR[1:],
    ),
    Symptom(
        "loss is not a number",
        r"Unexpected result (?P<value>nan|inf).*found (?:NaN|Inf) in local (?P<where>forward loss|grad norm)",
        "Training diverged: the {where} became {value}.",
        LOWER_LR,
    ),
)
