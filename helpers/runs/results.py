"""What can be asked of a run, wherever it ran: losses, speeds, memory, and what sets several runs apart."""

import math

from helpers.machine import GPU, Machine
from helpers.recipes import Layout, Recipe, accounting
from helpers.recipes.settings import Model, Speed
from helpers.show import frames
from helpers.show.arguments import checked
from helpers.show.names import nearest
from helpers.show.numbers import as_typed, shown

TAGS = (  # of Megatron's scalars, those that most runs have
    "lm loss", "lm loss validation", "learning-rate", "grad-norm", "iteration-time", "throughput",
    "mem-allocated-bytes", "mem-max-allocated-bytes",
)  # fmt: skip


class Results:
    """What a run here and a recorded run have in common.

    Subclasses give `described` and `environment` (recipe.json and environment.json), `predictions`, `scalars` (a
    DataFrame, one row per step, one column per tag), `state`, `path`, `wall_seconds` and `peak_memory_bytes`.
    """

    IN_WORDS = 'a run, such as runs.latest("gpt3_345m")'
    recorded_on: str | None = None

    @property
    def recipe(self) -> Recipe | None:
        """What was trained; None for a run that never wrote it down."""
        return Recipe.from_json(self.described) if "model" in self.described else None

    @property
    def recipe_name(self) -> str:
        return self.described.get("name", "run")

    @property
    def machine(self) -> str:
        """The machine's name, such as "2 × NVIDIA H200"; "" if the run never got so far."""
        return self.environment.get("machine", {}).get("name", "")

    @property
    def gpu(self) -> GPU | None:
        """One of its GPUs; None for a run on a CPU."""
        return next(iter(Machine.from_json(self.environment.get("machine", {})).gpus), None)

    @property
    def model(self) -> Model | None:
        return self.recipe and self.recipe.model

    @property
    def layout(self) -> Layout:
        return self.recipe.layout if self.recipe else Layout()

    @property
    def speed(self) -> Speed:
        return self.recipe.speed if self.recipe else Speed()

    @property
    def tokens_per_step(self) -> int | None:
        return self.recipe and self.recipe.batch.global_batch_size * self.recipe.model.sequence_length

    @property
    def measured_on(self) -> str:
        """The machine, and that it was another one where this is a record."""
        return f"recorded on {self.recorded_on}" if self.recorded_on else self.machine

    @property
    def is_profiled(self) -> bool:
        """Trained with the profiler on, which slows it: not to be compared with others."""
        return self.recipe is not None and "--profile" in self.recipe.extra_flags

    @property
    def step_milliseconds(self) -> float | None:
        """A step after warm-up, from the tokens/s of `figures`; None for a run that was never timed."""
        speed = self.figures()["tokens/s/GPU"]
        return self.tokens_per_step / speed / self.layout.world_size * 1e3 if speed and self.tokens_per_step else None

    @checked
    def series(self, tag: str):
        """One scalar of TensorBoard by step, as a pandas Series; empty if it is one of TAGS that the run never wrote.

        Raises:
            ValueError: neither has this run such a scalar, nor is it one of TAGS.
        """
        import pandas as pd

        table = self.scalars
        if tag not in table:
            if tag not in TAGS:
                raise ValueError(f"run.series({as_typed(tag)}): {_no_such('scalar', tag, {*table, *TAGS})}")
            return pd.Series(dtype=float, name=tag, index=pd.Index([], name="step", dtype=int))
        return table[tag].dropna()

    @property
    def losses(self):
        """Training loss (nats a token) by step, as a pandas Series; empty before the first step."""
        return self.series("lm loss").rename("loss")

    @property
    def validation_losses(self):
        """Loss on the validation part (nats a token) at the steps that looked at it, as a pandas Series; often empty.

        Megatron looks every `--eval-interval` steps and after the last one, at `--eval-iters` batches.
        """
        return self.series("lm loss validation").rename("validation loss")

    @property
    def tokens_per_second_per_gpu(self):
        """Speed of each step on one GPU (or CPU rank), as a pandas Series, from TensorBoard's `iteration-time`.

        Megatron times nothing before the second step, and gives that one as the mean of the first two.
        """
        tokens = (self.tokens_per_step or math.nan) / self.layout.world_size
        return (tokens / self.series("iteration-time")).rename("tokens/s/GPU")

    @checked
    def measured(self, figure: str) -> float:
        """One of the `figures` that is needed to go on.

        Raises:
            ValueError: there is no such figure, or it was not measured, in a run without a step, say.
        """
        figures = self.figures()
        if figure not in figures:
            raise ValueError(f"run.measured({as_typed(figure)}): {_no_such('figure', figure, figures)}")
        value = figures[figure]
        if value is None:
            raise ValueError(f"{self.headline}. It has no {figure} to go on with: take a run that has trained.")
        return value

    def figures(self) -> dict[str, float | None]:
        """The row of `summary` as a plain dict; None for what was not measured."""
        losses, held_out, model = self.losses, self.validation_losses, self.model
        speed = _median(after_warm_up(self.tokens_per_second_per_gpu))
        teraflops = _median(after_warm_up(self.series("throughput"))) if speed else None
        if teraflops is None and speed and model:
            teraflops = speed * accounting.flops_per_token(model) / 1e12
        steps = int(losses.index[-1]) if len(losses) else 0
        peak = self.peak_memory_bytes
        return {
            "steps": steps,
            "tokens": steps * self.tokens_per_step if self.tokens_per_step else None,
            "tokens/s/GPU": speed,
            "TFLOP/s/GPU": teraflops,
            "MFU": accounting.mfu(speed, model, self.gpu) if speed and model else None,
            "peak memory GB": peak / 1e9 if peak else None,
            "first loss": float(losses.iloc[0]) if len(losses) else None,
            "final loss": float(losses.iloc[-1]) if len(losses) else None,
            "validation loss": float(held_out.iloc[-1]) if len(held_out) else None,
            "wall time s": self.wall_seconds,
        }

    def summary(self):
        """One row: steps, tokens, tokens/s/GPU, TFLOP/s/GPU, MFU, peak memory GB, first, final and validation loss,
        wall time s.

        Speeds are medians after warm-up (see `after_warm_up`); of a run on a CPU they are tokens/s/rank and
        TFLOP/s/rank. What was not measured is NaN: MFU on a CPU, every speed in a run that never took a step.
        """
        import pandas as pd

        table = pd.DataFrame([self._told()], index=pd.Index([self.recipe_name], name="run"))
        counts = {"steps": "Int64", "tokens": "Int64"}
        return table.astype({name: counts.get(name, "float64") for name in table})

    def _told(self) -> dict[str, float | None]:
        """The figures by the names that readers see: on a CPU there is a rank where there would be a GPU."""
        unit = "GPU" if self.gpu else "rank"
        return {name.replace("/GPU", f"/{unit}"): value for name, value in self.figures().items()}

    @property
    def headline(self) -> str:
        """What it is and how it ended, in one line."""
        return f"{self.recipe_name}: {self.state}"

    def __repr__(self) -> str:
        lines = [self.headline]
        lines += [f"  {name:<16}{shown(value)}" for name, value in self._told().items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        import html

        import pandas as pd

        table = frames.to_html(pd.DataFrame([{name: shown(v) for name, v in self._told().items()}]), index=False)
        return f"<p><b>{html.escape(self.headline)}</b></p>{table}"


def _no_such(what: str, name: str, known) -> str:
    meant = nearest(name, known)
    hint = f"Did you mean {meant!r}? " if meant else ""
    return f"there is no such {what}. {hint}There are: {', '.join(sorted(known))}."


def after_warm_up(series):
    """A series without its first steps, in which things are still set up: a tenth, at least 3 and at most 10."""
    skipped = min(10, max(3, len(series) // 10))
    return series.iloc[skipped:] if len(series) > skipped else series.iloc[-1:]


def _median(series) -> float | None:
    return float(series.median()) if len(series) else None
