"""One launch of a recipe: the `torchrun` line, its flags with their reasons, and the environment it needs."""

import html
import shlex
import sys
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from helpers.machine import Machine
from helpers.machine.variables import device_environment
from helpers.ranks.repairs import gradient_fusion, table
from helpers.recipes.changes import acting
from helpers.recipes.flag import Flag
from helpers.recipes.nodes import FIRST_HOST, Nodes

PASSES = "MEGATRON_TOUR_PASSES"  # read by `ranks/passes`
CODE = "white-space: pre; overflow-x: auto; font-family: monospace; line-height: 1.4"  # a line is a line everywhere


@dataclass(frozen=True)
class Command:
    """One launch: `program` is what is run, up to the flags, `groups` holds its flags with their reasons.

    `environment` is what must be set for it: name → (value, why). Shown, it is the line for any torchrun; run, it is
    `ranks/torchrun`, which `torchrun --standalone` is but for the networks that it listens on. With `nodes`, it is the
    same on every one of them, and shown for the first.
    """

    program: tuple[str, ...]
    groups: dict[str, list[Flag]] = field(repr=False)
    environment: dict[str, tuple[str, str]]
    nodes: Nodes | None = None

    @property
    def argv(self) -> tuple[str, ...]:
        """The whole command; it runs as it is."""
        return (*self.program, *(word for flags in self.groups.values() for flag in flags for word in flag.words))

    def __str__(self) -> str:
        """What a shell takes as it is: a variable a line, then torchrun, then a flag a line with its value."""
        lines = [f"{name}={shlex.quote(value)}" for name, (value, _) in self.environment.items()]
        if self.nodes is None:
            lines.append(shlex.join(["torchrun", "--standalone", *self.program[3:]]))
        else:
            lines += [f"{name}={FIRST_HOST[name]}" for name in self.nodes.given()]
            lines.append(shlex.join(["torchrun", *self.program[3:]]))
        for word in self.argv[len(self.program) :]:
            if word.startswith("--"):
                lines.append("    " + shlex.quote(word))
            else:
                lines[-1] += " " + shlex.quote(word)
        return " \\\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f'<pre style="{CODE}">{html.escape(str(self))}</pre>'


def torchrun(recipe, nodes: Nodes | None) -> tuple[str, ...]:
    """How torchrun is started; on several nodes its other options are `nodes.variables()`."""
    program = (sys.executable, "-m", "helpers.ranks.torchrun")
    if nodes is None:
        return (*program, "--nproc-per-node", str(recipe.layout.world_size))
    return (*program, "--max-restarts", "0")  # started again, ranks would meet those of the first start


def data_flags(recipe, data, run_directory: Path | str) -> list[Flag]:
    """Where the tokens come from, and how they are cut into training, validation and test parts."""
    split = [Flag("--split", recipe.schedule.split, "train, validation, test parts of the documents")]
    loading = [Flag("--num-workers", "1", "processes that read ahead")]
    if "--reset-attention-mask" not in recipe.extra_flags:
        why = "every token sees those before it: no mask of sequence × sequence a sample"
        loading.append(Flag("--no-create-attention-mask-in-dataloader", None, why))
    if data is None:
        null = [Flag("--tokenizer-type", "NullTokenizer", "token ids, no text")]
        null.append(Flag("--vocab-size", str(recipe.model.vocab_size - 1), "ids to draw from"))
        return [Flag("--mock-data", None, "made-up tokens"), *null, *split, *loading]
    return [*corpus_flags(data, run_directory), *tokenizer_flags(data), *split, *loading]


def tokenizer_flags(data) -> list[Flag]:
    """Megatron's flags for a corpus's tokenizer (why not GPT2BPETokenizer: see helpers/corpus/tokenizer.py)."""
    return [
        Flag("--tokenizer-type", "HuggingFaceTokenizer", "the class that reads the vocabulary"),
        Flag("--tokenizer-model", str(data.tokenizer_path), "the vocabulary the corpus was cut with"),
    ]


def corpus_flags(data, run_directory: Path | str) -> list[Flag]:
    """Megatron's flags for a corpus's files, and for the cache of its sample index.

    Megatron takes that cache for whole if its files exist, so each run has its own, in its run directory: no two
    runs write the same files, and `ranks/index_cache.mend` removes what a killed start left half-written.
    """
    files = Flag("--data-path", data.data_path[0], "prefix of the .bin and .idx files")
    if len(data.data_path) > 1:
        files = Flag("--data-path", data.data_path, "weight and prefix of each corpus: shares of the samples")
    return [
        files,
        Flag("--data-cache-path", str(Path(run_directory) / "index_cache"), "the order of samples, kept with the run"),
    ]


def without_engine_states(machine: Machine) -> list[Flag]:
    """Lets Transformer Engine's layers load weights that were written without it, on a CPU: their FP8 states are not
    among them, and Megatron refuses a checkpoint that lacks any key (core/dist_checkpointing/validation.py). The log
    names what it lacks."""
    if machine.device == "cpu" or not machine.transformer_engine:
        return []
    return [Flag("--dist-ckpt-strictness", "log_unexpected", "weights written without Transformer Engine load, too")]


def device_flags(recipe, machine: Machine, entry_script: Path | str | None = None) -> list[Flag]:
    """The few flags that name a device or a fused kernel; everything else is the same on a CPU and on a GPU.

    The kernel that adds weight gradients up comes with apex; without, `ranks/repairs/gradient_fusion` stands in for it.
    """
    no_fused_gradients = Flag("--no-gradient-accumulation-fusion", None, "its kernel comes with apex, not with pip")
    lacking = "needs a GPU" if machine.device == "cpu" else "is not installed"
    local = [
        Flag("--transformer-impl", "local", f"plain PyTorch layers: Transformer Engine {lacking}"),
        Flag("--no-persist-layer-norm", None, "that norm's kernel comes with apex"),
    ]
    if machine.device == "cpu":
        flags = [
            Flag("--distributed-backend", "gloo", "ranks talk over sockets: NCCL needs GPUs"),
            *local,
            no_fused_gradients,
            Flag("--use-cpu-initialization", None, "weights drawn on the CPU, alike for every layout"),
        ]
        if recipe.layout.megatron_fsdp:
            why = "gradients are scaled after their sum: gloo, unlike NCCL, cannot do both at once"
            flags.append(Flag("--calculate-per-token-loss", None, why))
        if recipe.precision.dtype != "fp32":
            flags.append(Flag("--no-masked-softmax-fusion", None, "that kernel is CUDA only"))
        if recipe.model.position_embedding == "rope":
            flags.append(Flag("--no-rope-fusion", None, "that kernel is CUDA only"))
        return flags
    if not machine.transformer_engine:
        why = "that kernel comes with apex"
        return [*local, no_fused_gradients, Flag("--no-masked-softmax-fusion", None, why)]
    has_kernel = "gradient_fusion" in acting(recipe, machine, entry_script) or find_spec(gradient_fusion.KERNEL)
    return [] if has_kernel else [no_fused_gradients]


def loss_kernel(recipe, machine: Machine | None = None, entry_script: Path | str | None = None) -> str | None:
    """The fused loss of a run: "te" (`ranks/repairs/loss_kernel` in the place of Megatron's), "native" or None.

    Where Transformer Engine's is asked for and cannot be had, "native". With `--deterministic-mode` Megatron allows
    neither.
    """
    if (machine is not None and machine.device == "cpu") or "--deterministic-mode" in recipe.extra_flags:
        return None
    if "loss_kernel" in acting(recipe, machine, entry_script):
        return "te"
    return recipe.speed.cross_entropy_fusion and "native"


def speed_flags(recipe, machine: Machine, entry_script: Path | str | None) -> list[Flag]:
    """The flags of a recipe's speed, as far as the machine and the entry script allow.

    A CUDA graph takes ours: others end their process groups while it lives, and NCCL waits forever (`lifetime.leave`).
    """
    records = recipe.speed.cuda_graph and entry_script is None
    kernel = loss_kernel(recipe, machine, entry_script)
    return replace(recipe.speed, cross_entropy_fusion=kernel, cuda_graph=records).flags()


def run_variables(
    recipe,
    machine: Machine,
    entry_script: Path | str | None = None,
    run_directory: Path | str | None = None,
    nodes: Nodes | None = None,
) -> dict[str, tuple[str, str]]:
    """Environment variables of the run: name → (value, why). What the learner has set stays as it is."""
    if nodes is None:
        variables = device_environment(machine)
    else:
        variables = nodes.variables() | device_environment(machine, nodes.sockets)
    if machine.device == "cuda":
        if entry_script is None:
            why = "our changes to Megatron: python -m helpers.ranks.repairs tells of each; stock=True makes none"
            variables[table.VARIABLE] = (" ".join(acting(recipe, machine)), why)
        split = recipe.layout.tensor_parallel > 1 or recipe.layout.context_parallel > 1
        if recipe.layout.megatron_fsdp:
            why = "more queues: weights and gradients travel beside the products, and FSDP demands more than 1"
            variables["CUDA_DEVICE_MAX_CONNECTIONS"] = ("32", why)
        elif split and machine.gpus[0].compute_capability < (10, 0):
            why = "kernels start in order, so communication overlaps (before Blackwell)"
            variables["CUDA_DEVICE_MAX_CONNECTIONS"] = ("1", why)
        elif recipe.speed.overlap_communication:
            why = "more queues: gradients travel beside the products"
            variables["CUDA_DEVICE_MAX_CONNECTIONS"] = ("32", why)
        if recipe.precision.dtype == "fp32":
            variables["NVIDIA_TF32_OVERRIDE"] = ("0", "fp32 means fp32: TF32, Transformer Engine's choice, has 10 bits")
        why = "the allocator grows its blocks: less memory lost in gaps"
        variables["PYTORCH_CUDA_ALLOC_CONF"] = ("expandable_segments:True", why)
        if recipe.speed.cuda_graph:
            why = "NCCL must not register the memory of a recorded step with that allocator"
            variables["NCCL_GRAPH_REGISTER"] = ("0", why)
        if recipe.speed.overlap_tensor_parallel:
            variables["UB_SKIPMC"] = ("1", "Transformer Engine's overlap without NVLink multicast, which not all have")
    if recipe.logging.wandb_project:
        variables["WANDB_MODE"] = (recipe.logging.wandb_mode, "offline needs no account, online a login")
    if recipe.logging.record_schedule and run_directory is not None and entry_script is None:
        variables[PASSES] = (f"{run_directory}/passes", "where each rank writes when it computed which micro-batch")
    return variables
