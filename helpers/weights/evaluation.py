"""How well a checkpoint predicts text that it was not trained on."""

import json
import math
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np

from helpers.corpus import Corpus, data_split, samples
from helpers.corpus import tokenizer as tokenizers
from helpers.machine import Machine, for_ranks
from helpers.recipes import Layout, Recipe
from helpers.runs import Run
from helpers.show.arguments import checked
from helpers.weights import checkpoint, text
from helpers.weights.error import WeightsError

MARK = "LOSS {"  # what the program prints before its JSON


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The loss on held-out text: nats a token, over `tokens` of them, which stand for `bytes` of text in UTF-8.

    `each`: the loss of every sample by itself.
    """

    what: str
    loss: float
    tokens: int
    bytes: int
    each: tuple[float, ...] = ()

    @property
    def perplexity(self) -> float:
        """e to the loss: among how many equally likely tokens the model hesitates."""
        return math.exp(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits it takes to tell a byte of the text: comparable between models whose tokenizers differ."""
        return self.loss * self.tokens / math.log(2) / self.bytes if self.bytes else math.nan

    def _table(self):
        import pandas as pd

        row = {
            "loss": round(self.loss, 4),
            "perplexity": round(self.perplexity, 2),
            "bits per byte": round(self.bits_per_byte, 3),
            "tokens": f"{self.tokens:,}",
        }
        return pd.DataFrame([row], index=[self.what])

    def __repr__(self) -> str:
        return (
            f"{self.what}: loss {self.loss:.4f}, perplexity {self.perplexity:.2f}, {self.bits_per_byte:.3f} bits per "
            f"byte, over {self.tokens:,} tokens"
        )

    def _repr_html_(self) -> str:
        return self._table().to_html()


@checked
def evaluate(
    source: Run | Recipe,
    data: Corpus | None = None,
    *,
    part: Literal["train", "valid", "test", "all"] = "valid",
    samples: int | None = None,
    step: int | None = None,
    layout: Layout | None = None,
    machine: Machine | None = None,
) -> Evaluation:
    """Loss, perplexity and bits per byte of a checkpoint on text.

    With a corpus: on one part of it, each token predicted once, in the order of the documents. Without: what the run
    itself looked at when it printed `validation loss at iteration …`, so the loss is the printed one.

    Args:
        source: a run, or a recipe with pretrained weights.
        data: a corpus cut with the model's tokenizer: corpus.prepare(…, tokenizer=…).
        part: "train", "valid" or "test", by the recipe's split, or "all".
        samples: how many samples of the part at most, spread over all of it; every one if not given.
        step: of which checkpoint; the newest if not given.
        layout: how the ranks share the model out; one rank if not given.

    Raises:
        WeightsError: these weights or this corpus cannot be used, in words.
        corpus.CorpusError: the part is empty.
        launch.TrainingFailed: a rank failed.
    """
    if data is None and (part != "valid" or (samples or 0) > 0):
        asked = f"part={part!r}" if part != "valid" else f"samples={samples}"
        raise WeightsError(f"{asked} chooses from a corpus: weights.evaluate(run, data, {asked}).")
    saved, layout = _ready(source, samples, step, layout)
    if data is None:
        named = f"validation at step {saved.step}", _looked_at(source, saved)
    else:
        named = f"{data.name}, {part}", _in_order(saved, data, part, samples)
    return _measured(saved, layout, machine, [named])[0]


@checked
def evaluate_each(
    source: Run | Recipe,
    corpora: list[Corpus],
    *,
    part: Literal["train", "valid", "test", "all"] = "valid",
    samples: int | None = None,
    step: int | None = None,
    layout: Layout | None = None,
    machine: Machine | None = None,
) -> list[Evaluation]:
    """`evaluate` of several corpora; the ranks start once for all of them.

    Raises:
        WeightsError: there is no corpus; and as `evaluate`.
    """
    if not corpora:
        raise WeightsError("evaluate_each(corpora=[]): name one or more, such as [data].")
    saved, layout = _ready(source, samples, step, layout)
    texts = [(f"{data.name}, {part}", _in_order(saved, data, part, samples)) for data in corpora]
    return _measured(saved, layout, machine, texts)


@checked
def compare(before: list[Evaluation], after: list[Evaluation]):
    """Evaluations of two models on the same texts: loss and perplexity of both, and how far the loss moved (pandas).

    Behind the change stands its standard error over the samples, each compared with itself.

    Raises:
        WeightsError: they are of other texts, or of another number of tokens.
    """
    import pandas as pd

    if [(one.what, one.tokens) for one in before] != [(one.what, one.tokens) for one in after]:
        raise WeightsError("before and after are of different texts: evaluate the same ones, in the same order.")
    rows = [
        {
            "loss before": round(old.loss, 3),
            "after": round(new.loss, 3),
            "change": f"{new.loss - old.loss:+.3f}{_error(old, new)}",
            "perplexity before": round(old.perplexity, 1),
            "perplexity after": round(new.perplexity, 1),
            "bits per byte after": round(new.bits_per_byte, 3),
        }
        for old, new in zip(before, after, strict=True)
    ]
    return pd.DataFrame(rows, index=[one.what for one in before])


def _ready(
    source: Run | Recipe, samples: int | None, step: int | None, layout: Layout | None
) -> tuple[checkpoint.Checkpoint, Layout]:
    if samples is not None and samples < 1:
        raise WeightsError(f"samples={samples}: how many, 1 or more; None takes them all.")
    saved = checkpoint.of(source, step)
    return saved, checkpoint.for_inference(layout or Layout(), saved.recipe)


def _measured(
    saved: checkpoint.Checkpoint,
    layout: Layout,
    machine: Machine | None,
    texts: list[tuple[str, dict[str, np.ndarray]]],
) -> list[Evaluation]:
    """Each text, named, by its samples."""
    machine = machine or for_ranks(layout.world_size)
    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "samples.safetensors"
        save_file({name: np.concatenate([arrays[name] for _, arrays in texts]) for name in texts[0][1]}, file)
        at_once = min(saved.recipe.batch.micro_batch_size, sum(len(arrays["tokens"]) for _, arrays in texts))
        flags = saved.flags(layout, machine)
        said = checkpoint.ranks("held_out_loss", layout, file, at_once, *flags, machine=machine, recipe=saved.recipe)
    found = json.loads(next(line[line.index(MARK) + len(MARK) - 1 :] for line in said.splitlines() if MARK in line))
    rows = iter(zip(found["sums"], found["tokens"], strict=True))
    evaluations = []
    for what, arrays in texts:
        mine = [next(rows) for _ in arrays["tokens"]]
        total = sum(count for _, count in mine)
        predicted = arrays["labels"][arrays["loss_mask"] > 0].tolist()
        size = text.text_bytes(text.tokenizer_of(saved), predicted) if saved.tokenizer else 0
        each = tuple(nats / count for nats, count in mine if count)
        evaluations.append(Evaluation(what, sum(nats for nats, _ in mine) / total, total, size, each))
    return evaluations


def _error(old: Evaluation, new: Evaluation) -> str:
    """How sure the change is: the standard deviation of the samples' own changes ÷ √ of their number."""
    if min(len(old.each), len(new.each)) < 2:
        return ""
    return f" ± {np.std(np.subtract(new.each, old.each), ddof=1) / math.sqrt(len(new.each)):.3f}"


def _in_order(saved: checkpoint.Checkpoint, data: Corpus, part: str, count: int | None) -> dict[str, np.ndarray]:
    """The documents of a part one after the other, cut into samples; what the last one lacks does not count.

    Of `count` samples each is as far from the next: they are of as many documents as there are.
    """
    if saved.tokenizer and tokenizers.content(saved.tokenizer) != tokenizers.content(data.tokenizer_path):
        raise WeightsError(
            f"{data.name} was cut with another tokenizer ({data.tokenizer}) than these weights know: prepare it with "
            f"corpus.prepare(…, tokenizer={str(saved.tokenizer)!r})."
        )
    length, split = saved.recipe.model.sequence_length, saved.recipe.schedule.split
    opened = data.open_index()
    first, last = 0, opened.sequences
    if part != "all":
        samples.require_part(data, split, part, length)
        found = data_split.parts(opened, split, length)[data_split.PARTS.index(part)]
        first, last = found["first"], found["last"]
    stream = opened.tokens_of(first, last)
    if len(stream) < 2:
        raise WeightsError(f"The {part} part of {data.name} has {len(stream)} tokens: there is nothing to predict.")
    whole, rest = divmod(len(stream) - 1, length)
    rows = np.arange(whole + (rest > 0))
    if count is not None and count < len(rows):
        rows = np.linspace(0, whole - 1, count).round().astype(int)
    each = [np.asarray(stream[row * length : (row + 1) * length + 1], dtype=np.int64) for row in rows]
    padded = np.stack([np.pad(ids, (0, length + 1 - len(ids))) for ids in each])
    counts = np.stack([np.arange(length) < len(ids) - 1 for ids in each])
    return {
        "tokens": np.ascontiguousarray(padded[:, :-1]),
        "labels": np.ascontiguousarray(padded[:, 1:]),
        "position_ids": np.tile(np.arange(length), (len(rows), 1)),
        "loss_mask": counts.astype(np.float32),
    }


def _looked_at(run, saved: checkpoint.Checkpoint) -> dict[str, np.ndarray]:
    """The samples of the run's look at the validation part at the checkpoint's step, or of the last one before.

    As `get_train_valid_test_num_samples` (megatron/training/training.py) counts them: each look takes the next.
    """
    recipe, schedule = saved.recipe, saved.recipe.schedule
    words = shlex.split(getattr(run, "command", ""), comments=True)
    if "--data-path" not in words:
        raise WeightsError("These weights come without a corpus that they were trained on: name one, data=….")
    rest = words[words.index("--data-path") + 1 :]
    paths = rest[: next(place for place, word in enumerate(rest) if word.startswith("--"))]
    each = schedule.eval_iters * recipe.batch.global_batch_size
    looks = max(1, saved.step // schedule.eval_interval)
    if not each:
        raise WeightsError("The run never looked at its validation part (eval_iters=0): name a corpus, data=….")
    with tempfile.TemporaryDirectory() as index_cache:
        dataset = samples.megatron_dataset(
            SimpleNamespace(data_path=tuple(paths), tokenizer_path=saved.tokenizer),
            recipe.model.sequence_length,
            split=schedule.split,
            part="valid",
            count=(schedule.train_iters // schedule.eval_interval + 1) * each,
            index_cache=index_cache,
            seed=schedule.seed,
            reset_position_ids="--reset-position-ids" in recipe.extra_flags,
            eod_mask_loss="--eod-mask-loss" in recipe.extra_flags,
        )
        drawn = [dataset[i] for i in range((looks - 1) * each, looks * each)]
    names = ("tokens", "labels", "position_ids", "loss_mask")
    return {name: np.stack([sample[name].numpy() for sample in drawn]) for name in names}
