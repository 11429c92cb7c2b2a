"""The checkpoint that a call means, and how a program of ranks loads it: at whatever layout it is asked for."""

import json
import os
import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from helpers.machine import Machine
from helpers.processes import checkpoints, programs, trust
from helpers.recipes import Layout, Recipe
from helpers.recipes.command import without_engine_states
from helpers.recipes.preflight import sizes
from helpers.recipes.settings import Batch, Checkpoints, Logging, Precision, Schedule, Speed
from helpers.runs import Run
from helpers.weights import folders
from helpers.weights.error import WeightsError

REFUSED = "REFUSED: "  # before the sentence with which a program of ranks gives up
# Flags of a run that say nothing of its model, by how they begin; their values go with them.
NOT_THE_MODELS = ("--save", "--load", "--log", "--profile", "--tensorboard", "--wandb", "--exit", "--ckpt", "--rerun")
HOUR = 3600.0


@dataclass(frozen=True)
class Checkpoint:
    """Weights on disk: the recipe of their model, the folder and step that Megatron loads, and the tokenizer's folder
    (None for a run on made-up tokens)."""

    recipe: Recipe
    folder: Path
    step: int
    tokenizer: Path | None

    def flags(self, layout: Layout, machine: Machine) -> list[str]:
        """Megatron's flags for the model and its weights, at a layout, with nothing that trains or writes."""
        flags = [*model_flags(self.recipe, layout, machine), "--load", str(self.folder), "--exit-on-missing-checkpoint"]
        flags += ["--no-load-optim", "--no-load-rng"]
        flags += [word for flag in without_engine_states(machine) for word in flag.words]
        return flags + (["--ckpt-step", str(self.step)] if self.step else [])


def model_flags(recipe: Recipe, layout: Layout, machine: Machine) -> list[str]:
    """Megatron's flags for a recipe's model at a layout, without dropout, on made-up tokens."""
    bare = replace(
        recipe,
        model=replace(recipe.model, dropout=0.0),
        layout=layout,
        precision=Precision(dtype=recipe.precision.dtype),
        speed=Speed(),
        batch=Batch(1, layout.data_parallel),
        schedule=Schedule(train_iters=1, lr_warmup_iters=0),
        checkpoints=Checkpoints(),
        logging=Logging(tensorboard=False),
        extra_flags=_of_the_model(recipe.extra_flags),
        pretrained=None,
    )
    return bare.flags(None, machine)


def of(source: Run | Recipe, step: int | None = None) -> Checkpoint:
    """The checkpoint of a run (its newest whole one, or that of `step`), or the one that a recipe begins with.

    Raises:
        WeightsError: there is none that is whole, or none of that step.
        PermissionError: somebody else wrote it.
    """
    if isinstance(source, Recipe):
        if source.pretrained is None:
            raise WeightsError(
                f"{source.name} begins with random weights: train it first and give the run, or take published weights "
                "with weights.from_hugging_face."
            )
        recipe, folder, root = source, Path(source.pretrained), Path(source.pretrained).parent
        tokenizer = Path(source.tokenizer).expanduser() if os.path.isdir(source.tokenizer) else None
    else:
        recipe, root = source.recipe, Path(source.path)
        folder = root / "checkpoints"
        if recipe is None:
            raise WeightsError(f"{root} has no recipe.json, which says what its weights are of.")
        tokenizer = _tokenizer_of(source.command)
    if (word := checkpoints.spoilt_tracker(folder)) and (there := checkpoints.saved(folder)):
        raise WeightsError(
            f"{folder / checkpoints.TRACKER} holds {word!r}, and Megatron reads there which step is the newest. Write "
            f"{there[-1]} into it."
        )
    taken = _taken(folder, root, step)
    if why := trust.why_not(root):
        raise PermissionError(f"The checkpoint of {root} is not loaded. {why} runs.trust(path) says that you know.")
    return Checkpoint(recipe, folder, taken, tokenizer)


def _taken(folder: Path, root: Path, step: int | None) -> int:
    """The step to load: `step` if it is whole, without one the newest that is. What is passed over is printed."""
    newest, wrong = checkpoints.loaded_next(folder)
    if newest is None:
        raise WeightsError(f"{root} {checkpoints.none_whole(wrong)} Train with save_interval set.")
    if step is None:
        if words := checkpoints.passed_over(newest, wrong):
            print(words)
        return newest
    is_there = checkpoints.path_of(folder, step).is_dir()
    if why := checkpoints.why_not(folder, step) if is_there else f"{root} has no checkpoint of that step":
        whole = ", ".join(str(one) for one in checkpoints.saved(folder) if one not in wrong and one != step)
        raise WeightsError(f"step={step!r}: {why}. " + (f"There are: {whole}." if whole else "There is no other."))
    return step


def for_inference(layout: Layout, recipe: Recipe) -> Layout:
    """A layout as it can read without training: one copy of the model, no samples to share out.

    Raises:
        WeightsError: it splits sequences, interleaves stages, shares out tensors of experts, or does not fit the model.
    """
    if layout.context_parallel > 1 or layout.virtual_pipeline_chunks > 1:
        raise WeightsError(
            f"{layout.name}: a text that grows token by token is read whole by each rank, stage after stage. Tensor, "
            "pipeline and expert parallelism are what can share the model out."
        )
    if recipe.model.num_experts and layout.tensor_parallel > 1:
        raise WeightsError(
            f"{layout.name}: with experts Megatron shares out the sequence among tensor-parallel ranks, and one new "
            "token cannot be. Layout(processes=2, expert_parallel=2) shares out the experts."
        )
    size = max(layout.model_parallel, layout.expert_parallel * layout.pipeline_parallel)
    bare = replace(layout, processes=size, sequence_parallel=False, distributed_optimizer=False)
    wrong = [*sizes.shapes(recipe.with_(layout=bare)), *sizes.experts(recipe.with_(layout=bare))]
    if wrong:
        raise WeightsError("\n".join(map(str, wrong)))
    return bare


def vocabulary(saved: Checkpoint) -> int:
    """Rows of the embedding that stand for a token: what the published model had, else what the tokenizer knows."""
    rows = saved.recipe.model.vocab_size
    if config := published_config(saved.recipe):
        return config["vocab_size"]
    return (saved.tokenizer and folders.tokenizer_size(saved.tokenizer)) or rows


def published_config(recipe: Recipe) -> dict | None:
    """The config.json of the published model that training began with, over however many runs; None where none did."""
    folder = recipe.pretrained and Path(recipe.pretrained)
    while folder:
        if (file := folder.parent / "config.json").is_file():
            return json.loads(file.read_text())
        try:
            before = json.loads((folder.parent / "recipe.json").read_text()).get("pretrained")
        except (OSError, ValueError):
            return None
        folder = before and Path(before)
    return None


def ranks(program: str, layout: Layout, *arguments, machine: Machine, recipe: Recipe, **options) -> str:
    """Run `helpers/ranks/<program>.py`; what it refuses in words becomes a WeightsError."""
    variables = dict(recipe.with_(layout=layout).command(None, machine).environment)
    if machine.device == "cpu":
        share = max(1, machine.cpu_count // layout.world_size)
        variables["OMP_NUM_THREADS"] = (str(share), "these ranks have the cores to themselves")
    options |= {"machine": machine, "timeout_seconds": HOUR, "variables": variables}
    try:
        return programs.ranks(program, layout.world_size, *arguments, **options)
    except programs.TrainingFailed as failed:
        log = (failed.run_directory / "log.txt").read_text(errors="replace")
        if REFUSED in log:
            shutil.rmtree(failed.run_directory, ignore_errors=True)
            raise WeightsError(log.partition(REFUSED)[2].splitlines()[0]) from None
        raise


def _of_the_model(flags: tuple[str, ...]) -> tuple[str, ...]:
    kept, skipped = [], False
    for word in flags:
        skipped = word.startswith(NOT_THE_MODELS) if word.startswith("--") else skipped
        if not skipped:
            kept.append(word)
    return tuple(kept)


def _tokenizer_of(command: str) -> Path | None:
    words = shlex.split(command, comments=True)
    return Path(words[words.index("--tokenizer-model") + 1]) if "--tokenizer-model" in words else None
