"""Exercises of notebook 02 that change a launch: what the learner builds is planned, or trained, and then judged."""

import json
from pathlib import Path

from helpers import launch, recipes
from helpers.lessons.exercises import Message, is_number
from helpers.machine import CPU, GPU, PROJECT, Machine, here
from helpers.recipes import Recipe, accounting, preflight
from helpers.recipes.recipe import PARTS
from helpers.show.message import Text

SMALL_GPT = {"num_layers": 12, "hidden_size": 768, "num_attention_heads": 12}  # Brown et al. 2020, table 2.1
SIXTEEN = Machine(gpus=(GPU("a GPU of 16 GB", 16 * 10**9, (8, 0)),), transformer_engine=True)
STEPS = 20
SAME = {"cpu": 1e-5, "cuda": 1e-3}  # nats: sums in another order, in fp32 and in bf16
BROKEN = PROJECT / "notebooks" / "recorded" / "broken"
CAUSES = {
    "the learning rate is too high": (
        "the_loss_comes_back",
        "Look at the learning rate at the step where the loss turns, and at its end beside ln V = 8.3.",
    ),
    "fp16 skips steps until the loss scale fits": (
        "forty_steps_bought",
        "Count the steps that were skipped, and look what the loss scale does at each.",
    ),
    "the second launch found no checkpoint": (
        "the_next_twenty_steps",
        "Compare the first iteration of the second launch with the last one of the first.",
    ),
    "the data is shuffled differently": (None, ""),
    "a node is slower than the others": (None, ""),
}


def memory(recipe, gigabytes, data=None, machine: Machine | None = None) -> Message:
    """Judge a recipe of GPT-3's small model with 8 samples at once, and the GB that the learner worked out for it.

    The plan for a GPU with Transformer Engine decides. Where there is a GPU, five steps are trained and measured, too.
    """
    if ... in (recipe, gigabytes):
        return Message("asked", "Put a recipe and a number where the … are, and run the cell again.")
    if not isinstance(recipe, Recipe):
        return Message("wrong", f"The first is a recipe, like real.with_(num_layers=2), not {type(recipe).__name__}.")
    asked = SMALL_GPT | {"micro_batch_size": 8}
    settings = {name: _setting(recipe, name) for name in asked}
    if wrong := [f"{name} is {value}" for name, value in settings.items() if value != asked[name]]:
        return Message("wrong", f"This is another model or batch: {', '.join(wrong)}.")
    if not is_number(gigabytes) or not float(gigabytes) > 0:
        return Message("wrong", "The memory is one number, in GB.")
    machine = machine or here()
    planned = accounting.memory(recipe)
    total, words = sum(planned.values()) / 1e9, "the plan"
    if machine.device == "cuda":
        preflight.refuse(preflight.check(recipe, data, machine))
        short = recipe.with_(name=f"{recipe.name}_five_steps", train_iters=5, lr_warmup_iters=1, save_interval=None)
        total, words = launch.train(short, data, fresh=True, machine=machine).peak_memory_bytes / 1e9, "the run"
    off = float(gigabytes) / total - 1
    if abs(off) <= 0.1:
        return Message("right", f"Right: {words} needs {total:.1f} GB, and you are {abs(off):.0%} off.")
    parts = ", ".join(f"{part} {size / 1e9:.1f}" for part, size in planned.items())
    told = f"Not yet: {abs(off):.0%} {'more' if off > 0 else 'less'} than {words} needs."
    return Message("wrong", f"{told} Which part is it? Of the plan, in GB: {parts}.")


def sixteen_gigabytes(changes, data, machine: Machine | None = None) -> Message:
    """Judge changes that bring GPT3-345M without dropout into 16 GB and leave its losses as they are.

    The whole model is planned for a GPU of 16 GB. Then 20 steps are trained with the changes and 20 without: of the
    whole model where there is a GPU, of its small twin on a CPU.
    """
    if changes is ...:
        return Message("asked", "Put your changes where the … is, like {'lr': 1e-4}, and run the cell again.")
    if not isinstance(changes, dict) or not changes:
        return Message("wrong", "The changes are a dictionary of settings, as `with_` takes them.")
    reference = recipes.gpt3_345m().with_(dropout=0.0)
    try:
        changed = reference.with_(**changes)
        problems = [one for one in preflight.check(changed, None, SIXTEEN) if one.severity == "error"]
    except (TypeError, ValueError) as error:
        return Message("wrong", str(error))
    if complaint := _another_training(reference, changed):
        return Message("wrong", complaint)
    planned = sum(accounting.memory(changed, SIXTEEN).values()) / 1e9
    if problems:
        return Message("wrong", f"The plan says {planned:.1f} GB. {problems[0].why}")
    machine = machine or here()
    if machine.device == "cpu":
        reference = reference.scaled_to(CPU)
        changed = reference.with_(**_for_small_twin(changes, reference))
    one, other = (
        launch.train(
            recipe.with_(name=f"{recipe.name}_{name}", train_iters=STEPS, eval_iters=0, save_interval=None),
            data,
            fresh=True,
            machine=machine,
        )
        for name, recipe in (("reference", reference), ("16_gb", changed))
    )
    apart, limit = float((one.losses - other.losses).abs().max()), SAME[machine.device]
    what = "the small twin" if machine.device == "cpu" else "the whole model"
    told = (
        f"The plan is {planned:.1f} GB, and over {STEPS} steps of {what} the losses are at most {apart:.1g} nats apart"
    )
    return Message("right", f"Right. {told}.") if apart <= limit else Message("wrong", f"{told}: {limit:g} is allowed.")


def _another_training(reference: Recipe, changed: Recipe) -> str:
    """What of the changes would make it another training; "" where nothing does."""
    ranks = changed.layout.world_size
    if ranks > 1:
        return f"One GPU is all there is: this layout has {ranks} ranks."
    fixed = {"model": "the model", "precision": "the number formats", "schedule": "the schedule"}
    told = [words for part, words in fixed.items() if getattr(reference, part) != getattr(changed, part)]
    if reference.batch.global_batch_size != changed.batch.global_batch_size:
        told.append("the global batch")
    return f"That changes {' and '.join(told)}, and so what is learned." if told else ""


def _for_small_twin(changes: dict, small: Recipe) -> dict:
    """The same changes for the small model, whose batch is smaller."""
    size = min(changes.get("micro_batch_size", small.batch.micro_batch_size), small.batch.micro_batch_size // 2)
    kept = {name: value for name, value in changes.items() if name != "cuda_graph"}
    return kept | {"micro_batch_size": max(1, size)}


def _setting(recipe: Recipe, name: str):
    return next(getattr(getattr(recipe, part), name) for part in PARTS if hasattr(getattr(recipe, part), name))


def broken_log(number: int) -> Text:
    """One of the recorded logs of runs that went wrong without an error: 1, 2 or 3.

    Raises:
        ValueError: there is no such log.
    """
    return Text("".join(_log(number).read_text().splitlines(keepends=True)[1:]).rstrip())


def diagnose(number: int, cause) -> Message:
    """Judge the cause that the learner names for a broken log: one of `CAUSES`."""
    path = _log(number)
    if cause is ...:
        return Message("asked", f"Log {number}: put one of these where the … is: " + "; ".join(CAUSES) + ".")
    if not isinstance(cause, str) or cause not in CAUSES:
        return Message("wrong", f"Log {number}: choose one of these: " + "; ".join(CAUSES) + ".")
    right, hint = next((known, hint) for known, (name, hint) in CAUSES.items() if name == path.stem)
    if cause != right:
        return Message("wrong", f"Log {number}: not yet. {hint}")
    commands = json.loads(path.open().readline())["commands"]
    return Message("right", f"Log {number}: right. " + "The command was: " * bool(commands) + " … then ".join(commands))


def _log(number: int) -> Path:
    logs = sorted(BROKEN.glob("*.txt"))
    if number not in range(1, len(logs) + 1):
        raise ValueError(f"There are the logs 1 to {len(logs)}, and no log {number!r}.")
    return logs[number - 1]


def learning_rate(value, run, step: int = 60) -> Message:
    """Judge a learning rate worked out by hand against the one that Megatron logged for that step of a run."""
    if value is ...:
        return Message("asked", f"Put the learning rate of step {step} where the … is, and run the cell again.")
    if not is_number(value):
        return Message("wrong", "The learning rate is one number, like 1.5e-4.")
    logged = float(run.series("learning-rate").loc[step])
    if abs(float(value) / logged - 1) <= 0.01:
        return Message("right", f"Right: Megatron logged {logged:.4g} at step {step}.")
    warm_up, steps = run.recipe.schedule.lr_warmup_iters, run.recipe.schedule.train_iters
    hint = f"It is {'smaller' if float(value) > logged else 'larger'}. The cosine begins after step {warm_up}"
    return Message("wrong", f"Not yet. {hint} and takes {steps - warm_up} steps from --lr to --min-lr.")
