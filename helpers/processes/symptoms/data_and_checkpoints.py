"""Runs that die of a corpus or a checkpoint."""

from helpers.processes.symptoms.symptom import Symptom

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
