"""What cannot work, said before any process starts: what was asked, why not, what to change.

Reads a recipe, a corpus's files, a machine and a run directory. It imports neither Megatron nor torch and leaves
nothing behind, so it takes well under a second.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from helpers import accounting, precision_rules, rules
from helpers.corpus import data_split, index
from helpers.machine import Machine, here
from helpers.processes import checkpoints, control
from helpers.ranks.refused_flags import job_of
from helpers.rules import Problem, error, warning
from helpers.show import numbers

TOO_LARGE = "One rank would take about"  # how the reason begins when the memory is too small


class PreflightError(ValueError):
    """The run cannot work. `problems` holds every reason; the message says them all."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        what = "This cannot work" if len(problems) == 1 else f"{len(problems)} things cannot work"
        super().__init__("\n\n".join([f"{what}, so nothing was started.", *map(str, problems)]))


def check(
    recipe,
    data,
    machine: Machine | None = None,
    run_directory: Path | str | None = None,
    entry_script: Path | str | None = None,
) -> list[Problem]:
    """Everything that would keep the run from working, or that will surprise, in the order a learner would mend it.

    Args:
        recipe: a `recipes.Recipe`.
        data: a `corpus.Corpus`, or None for Megatron's mock data.
        machine: where it would run; None is this machine.
        run_directory: where it would write; None leaves disk and directory unchecked.
        entry_script: the learner's own `pretrain_gpt.py`, which may do other jobs than ours.
    """
    machine = machine or here()
    if found := list(rules.values(recipe)):
        return found
    found = [*rules.shapes(recipe), *rules.ranks(recipe, machine), *rules.experts(recipe)]
    splits_evenly = not any(problem.severity == "error" for problem in found)
    if splits_evenly:
        found += rules.batch_and_schedule(recipe)
    found += [*precision_rules.precision(recipe, machine), *precision_rules.speed(recipe, machine)]
    found += [*extra_flags(recipe, data, machine, entry_script is None), *logging(recipe)]
    if data is not None:
        found += corpus_problems(recipe, data)
    if run_directory is not None:
        found += directory(recipe, data, Path(run_directory))
    if splits_evenly:
        found += [*precision_rules.cuda_graph(recipe, machine), *memory(recipe, machine)]
    return found


def refuse(problems: list[Problem]) -> list[Problem]:
    """What `check` found, if it is only warnings.

    Raises:
        PreflightError: there is an error among the problems; it holds all of them.
    """
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise PreflightError(errors)
    return problems


def corpus_problems(recipe, data) -> Iterator[Problem]:
    """The tokenizer, the two data files and the three parts of the corpus."""
    tokenizer = Path(data.tokenizer_path)
    if not tokenizer.exists() or (tokenizer.is_dir() and not any(tokenizer.iterdir())):
        why = f"Megatron reads the vocabulary from {tokenizer}, and there is nothing."
        yield error(f"tokenizer {data.tokenizer}", why, f'corpus.prepare("{data.name}") fetches it again.')
    try:
        found = index.inspect(data.prefix, dtype=data.token_dtype)
    except index.InvalidIndex as invalid:
        yield error(f"corpus {data.name}", str(invalid), f'corpus.prepare("{data.name}") writes both files again.')
        return
    rows = recipe.model.vocab_size
    if data.max_token_id >= rows:
        why = f"The largest token id is {data.max_token_id:,}, and the embedding has rows 0 to {rows - 1:,}."
        padded = -(-data.vocab_size // 128) * 128
        change = f'vocab_size={padded}, or corpus.prepare("{data.name}", tokenizer="{recipe.tokenizer}").'
        yield error(f"vocab_size={rows} with the tokens of {data.tokenizer}", why, change)
    yield from _parts(recipe, found)


def _parts(recipe, found: index.Index) -> Iterator[Problem]:
    """Empty and short parts, as `gpt_dataset.py` and `data_samplers.py` meet them."""
    s, length = recipe.schedule, recipe.model.sequence_length
    try:
        parts = {part["part"]: part for part in data_split.parts(found, s.split, length)}
    except ValueError as invalid:
        yield error(f"split={s.split!r}", str(invalid), 'split="90,5,5".')
        return
    needed = {"train": True, "valid": s.eval_iters > 0, "test": False}
    for name, part in parts.items():
        asked = f'split="{s.split}" of {found.sequences:,} documents'
        if part["weight"] == 0 and needed[name]:
            why = (
                f"The {name} part has weight 0, so there is nothing to {'train' if name == 'train' else 'evaluate'} on."
            )
            change = 'split="90,5,5"' + (", or eval_iters=0." if name == "valid" else ".")
            yield error(asked, why, change)
        elif part["problem"] == "empty":
            why = (
                f"The {name} part gets {part['weight']:.2%} of the documents, which rounds to {part['documents']} "
                f"documents with {part['tokens']} tokens: Megatron's index builder would add up nothing for ever."
            )
            share = max(1, -(-1000 // max(1, found.sequences)))
            roomy = f"{max(1, 1000 - 2 * share)},{share},{share}"
            change = f'split="{roomy}" gives each part a document, or weight 0 leaves the part out.'
            yield error(asked, why, change if found.sequences > 2 else "A corpus of at least 3 documents.")
        elif part["problem"] == "too short":
            why = (
                f"The {name} part has {part['tokens']:,} tokens, and one sample takes sequence_length + 1 = "
                f"{length + 1:,}: Megatron would stop, or fill every sample with copies of the same text."
            )
            change = f"A larger weight for {name}, a larger corpus, or sequence_length={_power_below(part['tokens'])}."
            yield error(asked, why, change)


def _power_below(tokens: int) -> int:
    return 1 << max(0, (max(2, tokens) - 1).bit_length() - 1)


def extra_flags(recipe, data, machine: Machine, our_script: bool = True) -> Iterator[Problem]:
    """Flags of the learner's own: those our entry script leaves out, and those a field of the recipe sets already."""
    words = [word.split("=")[0] for word in recipe.extra_flags if word.startswith("--")]
    if not words:
        return
    for word in words if our_script else ():
        if job := job_of(word):
            why = f"It belongs to {job}; this script pretrains GPT models."
            yield error(f"extra_flags {word}", why, "Leave it out, or give your own Megatron-LM as entry_script.")
    groups = recipe.flag_groups(data, machine)
    ours = {flag.name for group, flags in groups.items() if group != "your own" for flag in flags}
    for word in sorted(ours.intersection(words)):
        why = "The recipe sets this flag itself; Megatron takes the last one, which preflight has not checked."
        yield warning(f"extra_flags {word}", why, "recipe.with_(…) changes it in one place.")


def logging(recipe) -> Iterator[Problem]:
    """W&B without TensorBoard."""
    if recipe.logging.wandb_project and not recipe.logging.tensorboard:
        why = "Megatron sends to W&B what it writes to TensorBoard, and nothing without it; so it is turned on for you."
        yield warning(
            f'wandb_project="{recipe.logging.wandb_project}" with tensorboard=False', why, "tensorboard=True."
        )


def directory(recipe, data, run_directory: Path) -> Iterator[Problem]:
    """Another recipe's checkpoint, a place that cannot be written to, too little disk for the checkpoints."""
    step, ours = checkpoints.latest(run_directory / "checkpoints"), recipe.fingerprint(data)
    holds = _fingerprint(run_directory)
    if step is not None and holds != ours:
        why = (
            f"It holds a checkpoint of step {step} of another recipe or corpus ({holds or 'unknown'}, this one is "
            f"{ours}): Megatron would continue from weights of another shape or meaning."
        )
        yield error(f"run directory {run_directory}", why, "fresh=True starts a run directory of its own.")
    parent = next(path for path in (run_directory, *run_directory.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as refusal:
        why = f"{parent} cannot be written to: {refusal.strerror}."
        yield error(f"run directory {run_directory}", why, "MEGATRON_TOUR_RUNS=<a folder of yours> in the environment.")
        return
    same = [folder for folder in (run_directory, *sorted(run_directory.glob("*/"))) if _fingerprint(folder) == ours]
    goes_on = same and control.state(same[-1]) in ("failed", "stopped")
    yield from _disk(recipe, parent, len(checkpoints.saved(same[-1] / "checkpoints")) if goes_on else 0)


def _fingerprint(run_directory: Path) -> str | None:
    try:
        return json.loads((run_directory / "recipe.json").read_text())["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _disk(recipe, folder: Path, there: int) -> Iterator[Problem]:
    """`there` is how many of the run's checkpoints lie on the disk already."""
    keep, interval = recipe.checkpoints.keep, recipe.checkpoints.save_interval
    if interval is None:
        return
    size, one, free = numbers.decimal_bytes, accounting.checkpoint_bytes(recipe), shutil.disk_usage(folder).free
    steps = recipe.schedule.exit_interval or recipe.schedule.train_iters
    # The next checkpoint is whole before the oldest goes.
    count = max(1, min(keep + 1, -(-steps // interval)) - there)
    if one * count > free:
        why = f"A checkpoint takes {size(one)}, {count} on disk at once {size(one * count)}; {size(free)} is free."
        fits = int(free // one) + there
        change = f"keep={fits - 1}" if fits >= 2 else "save_interval=None (no checkpoints)"
        yield error(f"save_interval={interval} with keep={keep}", why, f"{change}, or free {size(one * count - free)}.")


def memory(recipe, machine: Machine) -> Iterator[Problem]:
    """The estimate of `accounting.memory` against the GPU's memory, or against the machine's on a CPU."""
    size = numbers.decimal_bytes
    parts = accounting.memory(recipe, machine)
    need = sum(parts.values())
    if machine.device == "cpu":
        world = recipe.layout.world_size
        if need * world > machine.memory_bytes:
            each = f"{world} × {size(need)}" if world > 1 else size(need)
            why = f"It would take about {each} of memory; the machine has {size(machine.memory_bytes)}."
            change = _lower(recipe, machine, machine.memory_bytes / world)
            yield error(f"{recipe.name} ({recipe.layout.name}) on {machine.name}", why, f"{change}.")
        return
    have = min(gpu.memory_bytes for gpu in machine.gpus)
    if need > have:
        shares = ", ".join(f"{part} {size(part_bytes)}" for part, part_bytes in parts.items())
        why = f"{TOO_LARGE} {size(need)} ({shares}): {size(need - have)} more than the GPU's {size(have)}."
        asked = f"{recipe.name} ({recipe.layout.name}) on {machine.name}"
        yield error(asked, why, f"{_lower(recipe, machine, have)}.")


def _lower(recipe, machine: Machine, room: float) -> str:
    """What would save memory, and how much: the changes that the layout allows, largest saving first."""
    lay, b = recipe.layout, recipe.batch
    changes: list[dict] = []
    if b.micro_batch_size > 1:
        changes += [{"micro_batch_size": b.micro_batch_size // 2}, {"micro_batch_size": 1}]
    if b.recompute != "full":
        changes.append({"recompute": "full"})
    if lay.data_parallel * lay.context_parallel > 1 and not lay.distributed_optimizer:
        changes.append({"distributed_optimizer": True})
    gpus, wider = len(machine.gpus), lay.tensor_parallel * 2
    if lay.world_size < gpus:
        changes.append({"processes": gpus, "distributed_optimizer": True})
    if wider <= gpus and not list(rules.shapes(recipe.with_(**_wider(recipe, wider)))):
        changes.append(_wider(recipe, wider))
    everything = {name: value for change in changes for name, value in change.items()}
    if len(changes) > 1 and not any(_total(recipe, change, machine) <= room for change in changes):
        changes.append(everything)
    need, options = _total(recipe, {}, machine), {}
    for change in changes:
        total = _total(recipe, change, machine)
        words = ", ".join(f"{name}={value!r}" for name, value in change.items())
        if total < need:
            fits = ", which fits" if total <= room else ""
            options[f"{words} (saves {numbers.decimal_bytes(need - total)}{fits})"] = total
    ordered = sorted(options, key=options.get)
    if not ordered or options[ordered[0]] > room:
        ordered.append("recipe.scaled_to(machine), a smaller model of the same architecture")
    return "; or ".join(ordered)


def _total(recipe, change: dict, machine: Machine) -> float:
    return sum(accounting.memory(recipe.with_(**change), machine).values())


def _wider(recipe, tensor_parallel: int) -> dict:
    lay = recipe.layout
    world = max(lay.world_size, tensor_parallel * lay.pipeline_parallel * lay.context_parallel)
    return {"tensor_parallel": tensor_parallel, "sequence_parallel": True, "processes": world}
