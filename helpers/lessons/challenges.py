"""Exercises that change a launch, and are checked by running it; each answers in words, never with a traceback."""

import math
from dataclasses import dataclass, fields

from helpers import launch, recipes
from helpers.corpus import Blend, Corpus
from helpers.lessons.exercises import check, told
from helpers.machine import GPU, PROJECT, Machine, here
from helpers.recipes import Recipe, accounting, preflight
from helpers.recipes.preflight import sizes
from helpers.recipes.settings import Batch, Speed
from helpers.runs.results import Results
from helpers.show.message import Message, Text
from helpers.show.numbers import as_typed

BROKEN = PROJECT / "notebooks" / "recorded" / "broken"
SMALL_GPU = Machine(gpus=(GPU("a GPU of 16 GB", 16 * 2**30, (8, 6)),), transformer_engine=True)
KEEPS_THE_LOSS = {field.name for part in (Batch, Speed) for field in fields(part)} - {"global_batch_size"}
SAME_LOSS = 1e-3  # nats a token, the largest difference over STEPS steps
STEPS = 20
SIZES = {"num_layers": 12, "hidden_size": 768, "num_attention_heads": 12}  # GPT-3 Small: Brown et al. 2020, table 2.1


# ---- GPT-3 Small, and its memory by hand --------------------------------------------------------------------------
@told
def gpt3_small(recipe, gigabytes, data: Corpus | Blend | None = None, machine: Machine | None = None) -> Message:
    """Check a recipe of GPT-3 Small (12 layers × 768, 12 heads) and the GB that its tensors were predicted to take.

    Right is within 10 % of the plan without libraries and context, `accounting.memory`; with `data` on a GPU, of the
    peak of a run of five steps.
    """
    name = "GB of GPT-3 Small"
    if recipe is ... or gigabytes is ...:
        return check(name, ..., expected=0)
    if not isinstance(recipe, Recipe):
        told = f"the first answer is a recipe, not {type(recipe).__name__}"
        return Message("wrong", f"{name}: {told}. Begin with recipes.gpt3_345m().with_(…).")
    if problems := preflight.wrong_values(recipe):
        return Message("wrong", f"{name}: {problems[0].asked}. {problems[0].why} {problems[0].change}")
    if (recipe.model.sequence_length, recipe.model.vocab_size) != (1024, 50304):
        return Message("wrong", f"{name}: change recipes.gpt3_345m() itself; this one has another text or vocabulary.")
    wrong = {key: getattr(recipe.model, key) for key, size in SIZES.items() if getattr(recipe.model, key) != size}
    if wrong:
        words = ", ".join(f"{key}={value}" for key, value in wrong.items())
        return Message("wrong", f"{name}: not GPT-3 Small yet, look at {words}: table 2.1 of Brown et al. 2020.")
    if problems := [*sizes.shapes(recipe)]:
        return Message("wrong", f"{name}: {problems[0].asked}. {problems[0].why} {problems[0].change}")
    machine = machine or here()
    parts = accounting.memory(recipe, machine if machine.device == "cuda" else None)
    expected = sum(size for part, size in parts.items() if part != "other") / 1e9
    states = sum(parts[part] for part in ("weights", "gradients", "optimizer")) / 1e9
    hint = "States are 18 bytes a parameter; activations grow with the micro-batch, and so do the logits."
    if _near(gigabytes, states):
        hint = "That is weights, gradients and optimizer. Activations and logits are missing."
    answer = check(name, gigabytes, expected, tolerance=0.1, hint=hint)
    if answer.kind != "right":
        return answer
    planned = f"{answer.text} The plan says {expected:.2f} GB."
    if data is None or machine.device == "cpu":
        return Message("right", planned)
    tried = recipe.with_(name="gpt3_small_check", train_iters=5, lr_warmup_iters=1, save_interval=None)
    peak = launch.train(tried, data, fresh=True, machine=machine).figures()["peak memory GB"]
    return Message("right" if _near(gigabytes, peak, 0.1) else "wrong", f"{planned} Measured: {peak:.2f} GB.")


def _near(answer, value: float, tolerance: float = 0.05) -> bool:
    return check("", answer, value, tolerance).kind == "right"


# ---- the 345M in 16 GB --------------------------------------------------------------------------------------------
@told
def fit_16gb(changes, data: Corpus | Blend | None, machine: Machine | None = None) -> Message:
    """Check changes (a dict for `with_`) that bring GPT3-345M without dropout into 16 GB and leave its losses alone.

    First the plan for a GPU of 16 GB. Then the losses of 20 steps with and without the changes, at most 1e-3 apart: of
    the real model on a GPU, whose measured peak must fit as well, of its small twin elsewhere.
    """
    name = "the 345M in 16 GB"
    if changes is ... or changes is None:
        return check(name, ..., expected=0)
    if not isinstance(changes, dict):
        told = f"the answer is a dict of changes for with_, not {type(changes).__name__}"
        return Message("wrong", f'{name}: {told}. It looks like {{"lr": 1e-4}}.')
    whole = recipes.gpt3_345m().with_(dropout=0.0)
    try:
        small = whole.with_(**changes)
    except TypeError as unknown:
        return Message("wrong", f"{name}: {unknown}")
    if other := sorted(changes.keys() - KEEPS_THE_LOSS):
        told = f"{', '.join(other)} changes what is learned, or how precisely"
        return Message("wrong", f"{name}: {told}. Leave it as it is.")
    errors = [found for found in preflight.check(small, None, SMALL_GPU) if found.severity == "error"]
    if errors and all(found.why.startswith(preflight.TOO_LARGE) for found in errors):
        parts = accounting.memory(small, SMALL_GPU)
        told = f"planned {sum(parts.values()) / 1e9:.1f} GB of {16 * 2**30 / 1e9:.1f}"
        return Message("wrong", f"{name}: {told}. The largest part: {max(parts, key=parts.get)}.")
    if errors:
        return Message("wrong", f"{name}: {errors[0].why} {errors[0].change}")
    machine = machine or here()
    pair = [whole, small] if machine.device == "cuda" else [_twin(whole, {}), _twin(whole, changes)]
    runs = []
    for recipe, word in zip(pair, ("reference", "changed"), strict=True):
        if machine.device == "cuda" and word == "reference":
            recipe = recipe.scaled_to(machine)
        named = recipe.with_(name=f"fit_16gb_{word}", exit_interval=STEPS, save_interval=None)
        runs.append(launch.train(named, data, fresh=True, machine=machine))
    apart = float((runs[0].losses - runs[1].losses).abs().max())
    if apart > SAME_LOSS:
        return Message("wrong", f"{name}: it fits, but the losses of {STEPS} steps are up to {apart:.2g} apart.")
    peak = runs[1].figures()["peak memory GB"]
    if machine.device == "cuda" and peak * 1e9 + accounting.memory(small, machine)["other"] > 16 * 2**30:
        return Message("wrong", f"{name}: it was planned to fit, but its tensors took {peak:.1f} GB.")
    whose = "" if machine.device == "cuda" else " of the small twin"
    return Message("right", f"{name}: it fits, and the losses{whose} are at most {apart:.1g} apart in {STEPS} steps.")


def _twin(whole: Recipe, changes: dict) -> Recipe:
    """The small model of a CPU, its batch cut into as many micro-batches as the real one."""
    twin = whole.scaled_to("cpu").with_(micro_batch_size=whole.scaled_to("cpu").batch.global_batch_size)
    scaled = dict(changes)
    if "micro_batch_size" in scaled:
        pieces = whole.batch.global_batch_size // scaled["micro_batch_size"]
        scaled["micro_batch_size"] = max(1, twin.batch.global_batch_size // pieces)
    return twin.with_(**{key: value for key, value in scaled.items() if not hasattr(Speed(), key)})


# ---- logs of runs that went wrong ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Fault:
    """A recorded log, the cause of what is wrong in it, where to look, and why it is that."""

    file: str
    cause: str
    look: str
    why: str


CAUSES = {
    "learning rate": "the learning rate is too high",
    "loss scale": "the loss scale began too high for fp16, and steps were skipped",
    "checkpoint": "the checkpoint was not found, and training began anew",
    "leaking labels": "the model sees the tokens that it is to predict",
    "dropout": "dropout is left on while the loss is measured",
    "little data": "the training part is too small, and the same samples come again",
}
FAULTS = {
    1: Fault(
        "forty_steps_bought.txt",
        "loss scale",
        "Count the steps that changed a weight, and see what is halved meanwhile.",
        "In fp16 the loss is multiplied by the loss scale, 2³² at first. The gradients overflow, the step is skipped "
        "and the scale halved, 15 times: steps 1 to 15 print no loss, and the learning rate stays at 0. Of 40 steps 24 "
        "trained; the last one was skipped again, and its 0.0 is no loss. bf16 needs no scale; a smaller "
        "--initial-loss-scale loses fewer steps.",
    ),
    2: Fault(
        "the_loss_comes_back.txt",
        "learning rate",
        "Read the loss beside the learning rate, step by step, and both beside ln 4096 = 8.32.",
        "The loss falls for four steps while the rate climbs, then goes back, up to 12.4 at step 8: worse than "
        "guessing. It comes down again as the rate does. No step was skipped and nothing is NaN, so nobody warns. The "
        "highest rate is 0.1; the recipe of this model has 0.002.",
    ),
    3: Fault(
        "the_next_twenty_steps.txt",
        "checkpoint",
        "Compare the two launches: with which step does the second one begin, and why?",
        "The first launch saves step 20 to runs/small_gpt. The second looks in runs/small-gpt, finds nothing, warns in "
        "one line and starts from random weights: the same 20 steps once more, and no error. "
        "--exit-on-missing-checkpoint ends it instead, though with exit code 0. Read the first line of a step after "
        "each start.",
    ),
}


NO_SUCH_LOG = Message("wrong", f"There is no such broken log: there are {', '.join(map(str, FAULTS))}.")


def broken_log(number: int) -> Text | Message:
    """A recorded log of a run that ended without an error and still went wrong, as Megatron printed it: 1, 2 or 3."""
    if not _is_fault(number):
        return NO_SUCH_LOG
    return Text((BROKEN / FAULTS[number].file).read_text().partition("\n")[2])  # the first line says how it was made


def diagnose(number: int, cause) -> Message:
    """Check the cause of what went wrong in `broken_log(number)`: one of the names of `CAUSES`."""
    name = f"broken log {number}"
    if not _is_fault(number):
        return NO_SUCH_LOG
    choices = "; ".join(f"“{key}”: {words}" for key, words in CAUSES.items())
    if cause is ... or cause is None:
        return Message("asked", f"{name}: put one of these names where the … is. {choices}.")
    if not isinstance(cause, str) or cause.strip().casefold() not in CAUSES:
        return Message("wrong", f"{name}: {as_typed(cause)} is none of the names. {choices}.")
    fault = FAULTS[number]
    if cause.strip().casefold() != fault.cause:
        return Message("wrong", f"{name}: not that. {fault.look}")
    return Message("right", f"{name}: {CAUSES[fault.cause]}. {fault.why}")


def _is_fault(number) -> bool:
    return type(number) is int and number in FAULTS


# ---- the schedule by hand -----------------------------------------------------------------------------------------
@told
def learning_rate(answer, run: Results, step: int = 60) -> Message:
    """Check a learning rate worked out by hand against what a run logged at a step."""
    name, logged = f"the learning rate at step {step}", run.series("learning-rate")
    if step not in logged:
        return Message("wrong", f"{name}: {run.recipe_name} logged {len(logged)} steps, and not that one.")
    schedule, expected = run.recipe.schedule, float(logged[step])
    share, height = step / schedule.train_iters, schedule.lr - schedule.min_lr
    slips = {  # a value that a slip gives → what to tell of it
        schedule.lr: "That is the highest one, --lr: the cosine has come down from it.",
        schedule.lr * (1 - share): "That is a straight line: --lr-decay-style is cosine.",
        schedule.lr * (1 + _cosine(schedule, step)) / 2: "The cosine ends at --min-lr, not at 0.",
        schedule.min_lr + height * (1 + _cosine(schedule, step, warm_up=0)) / 2: "The cosine begins after the warm-up.",
        height * (1 + _cosine(schedule, step)) / 2: "--min-lr is still to be added.",
    }
    hint = "First a line to --lr in --lr-warmup-iters steps, then half a cosine to --min-lr at the last step."
    told = check(name, answer, expected, 0.005, hint)
    slip = next((words for value, words in slips.items() if _near(answer, value, 0.005)), None)
    return Message("wrong", f"{name}: not yet. {slip}") if told.kind == "wrong" and slip else told


def _cosine(schedule, step: int, warm_up: int | None = None) -> float:
    first = schedule.lr_warmup_iters if warm_up is None else warm_up
    return math.cos(math.pi * (step - first) / (schedule.train_iters - first))
