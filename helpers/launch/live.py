"""What is shown while a run trains: one text line always; in Jupyter a progress bar and a figure that grow in place.

Everything is drawn by the caller's thread from text that the run already wrote, so a slow browser never slows training.
"""

import contextlib
import html
import math
import statistics
import sys
import time

from helpers.processes import logs
from helpers.show import style
from helpers.show.numbers import duration

LINE_SECONDS = 0.5  # between two texts of the line
FIGURE_SECONDS = 2.0  # between two figures, at least
FIGURE_SHARE = 15  # and at least this many times what drawing one takes, while the ranks need the cores
FIRST_FIGURE_STEPS = 8  # fewer are a line between two points on axes that say nothing
PLAIN_SECONDS = 30  # between two lines where nothing can be rewritten in place
MAX_POINTS = 400


class Progress:
    """Steps, losses and speeds so far, from the log's text. `sequence_length` turns samples into tokens.

    A new launch of the same run has nothing to show until its own first step; then what came before is there again.
    """

    def __init__(self, sequence_length: int, vocab_size: int | None = None, last_step: int | None = None):
        self.sequence_length, self.vocab_size, self.last_step = sequence_length, vocab_size, last_step
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.tokens_per_second: list[float] = []
        self.seconds: list[float] = []
        self.started = time.monotonic()
        self.phase = "starting"
        self.standstill: str | None = None  # why nothing comes now, in words
        self._in_launch = 0
        self._earlier: list[tuple] = []  # (step, loss, tokens/s, seconds) of the launches before this one

    def hear(self, text: str) -> None:
        """Take new log text into account."""
        for line in text.splitlines():
            if step := logs.parse_step(line):
                self._take(step)
            elif line.startswith(logs.LAUNCH_MARK):
                self._begin()
            elif "loading checkpoint from" in line or "loading distributed checkpoint" in line:
                self.phase = "loading the checkpoint"
            elif "saving checkpoint" in line:
                self.phase = "saving a checkpoint"
            elif "Evaluating on" in line:
                self.phase = "evaluating"
            elif "successfully saved" in line:
                self.phase = "training"

    @property
    def _series(self) -> tuple[list, ...]:
        return self.steps, self.losses, self.tokens_per_second, self.seconds

    def _begin(self) -> None:
        """A launch starts."""
        self._earlier = list(zip(*self._series, strict=True)) or self._earlier
        for values in self._series:
            values.clear()
        self._in_launch, self.phase = 0, "starting"

    def _take(self, step: logs.Step) -> None:
        loss = math.nan if step.loss is None else step.loss
        self._in_launch += 1
        if self._in_launch == 1:
            for kept in (row for row in self._earlier if row[0] < step.step):
                for values, value in zip(self._series, kept, strict=True):
                    values.append(value)
        if self._in_launch == 2 and self.steps[-1] == step.step - 1:
            loss = 2 * loss - self.losses[-1]  # Megatron prints the mean of the first two (training_log)
        self.steps.append(step.step)
        self.losses.append(loss)
        self.seconds.append(step.milliseconds / 1e3)
        self.tokens_per_second.append(step.global_batch_size * self.sequence_length / self.seconds[-1])
        self.last_step = min(self.last_step or step.train_iters, step.train_iters)
        self.phase = "training"

    @property
    def speed(self) -> float:
        """Tokens/s, median of the last ten steps (the first step of a run compiles and allocates: not counted)."""
        recent = self.tokens_per_second[1:][-10:] or self.tokens_per_second
        return statistics.median(recent) if recent else 0.0

    @property
    def seconds_left(self) -> float:
        return (self.last_step - self.steps[-1]) * statistics.median(self.seconds[-10:])

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def line(self) -> str:
        """ "step 120/500 · loss 5.412 · 12,345 tokens/s · 0:31 left"."""
        if self.standstill:
            return self.standstill
        if not self.steps:
            return f"{self.phase} … {duration(self.elapsed)}"
        parts = [f"step {self.steps[-1]:,}/{self.last_step:,}", f"loss {self.losses[-1]:.3f}"]
        parts.append(f"{self.speed:,.0f} tokens/s")
        if self.steps[-1] < self.last_step:
            parts.append(f"{duration(self.seconds_left)} left")
        if self.phase != "training":
            parts.append(self.phase)
        return " · ".join(parts)

    def summary(self) -> str:
        """The line that stays: where the loss began and ended, the speed, the time."""
        if not self.steps:
            before = f"no new step: {self._earlier[-1][0]:,} had been taken before" if self._earlier else "no step"
            return f"{before} · {duration(self.elapsed)}"
        first = next((loss for loss in self.losses if not math.isnan(loss)), math.nan)
        return (
            f"{self.steps[-1]:,}/{self.last_step:,} steps · loss {first:.3f} → {self.losses[-1]:.3f} · "
            f"{self.speed:,.0f} tokens/s · {duration(self.elapsed)}"
        )


class PlainView:
    """A line now and then, for logs and pipes."""

    def __init__(self, stream=None):
        self.stream = stream or sys.stdout
        self.shown_at = -math.inf
        self.next_share = 0.0

    def update(self, progress: Progress) -> None:
        share = progress.steps[-1] / progress.last_step if progress.steps else 0.0
        due = time.monotonic() - self.shown_at > PLAIN_SECONDS
        if due or (share > 0 and share >= self.next_share):
            self.shown_at = time.monotonic()
            self.next_share = share + 0.25
            print(progress.line(), file=self.stream, flush=True)

    def finish(self, progress: Progress, words: str) -> None:
        print(f"{words}: {progress.summary()}", file=self.stream, flush=True)


class TerminalView:
    """One line, rewritten in place."""

    def __init__(self, stream=None):
        self.stream = stream or sys.stdout
        self.shown_at = -math.inf

    def update(self, progress: Progress) -> None:
        if time.monotonic() - self.shown_at > LINE_SECONDS:
            self.shown_at = time.monotonic()
            self._write(progress.line())

    def finish(self, progress: Progress, words: str) -> None:
        self._write(f"{words}: {progress.summary()}")
        self.stream.write("\n")
        self.stream.flush()

    def _write(self, line: str) -> None:
        self.stream.write(f"\r\x1b[2K{line}")
        self.stream.flush()


class JupyterView:
    """A progress bar with the line, and below it loss and throughput, each updated in place (`display_id`).

    Works wherever outputs can be updated: Lab, Notebook, VS Code, nbclient; no widget has to be installed in the
    browser. What stays of a run that ended well is the line as text, with the picture folded up behind a word.
    """

    def __init__(self):
        self.line_handle = self.figure_handle = None
        self.line_at = self.figure_at = -math.inf
        self.figure_seconds = FIGURE_SECONDS
        self.figure = None
        self.drawn_step = 0

    def update(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.line_at > LINE_SECONDS:
            self.line_at = now
            self._show_line(progress.line(), bar(progress))
        if self._wants_figure(progress, now):
            self._show_figure(progress)

    def _wants_figure(self, progress: Progress, now: float) -> bool:
        """For new steps, and sooner while the ranks save or evaluate: drawing takes nothing from them then."""
        if len(progress.steps) < FIRST_FIGURE_STEPS or progress.steps[-1] == self.drawn_step:
            return False
        return now - self.figure_at > (self.figure_seconds if progress.phase == "training" else FIGURE_SECONDS)

    def finish(self, progress: Progress, words: str) -> None:
        line = f"{words}: {progress.summary()}"
        self._show_line(line, f"<code>{html.escape(line)}</code>")
        if len(progress.steps) > 1:
            self._show_figure(progress, folded=words in ("finished", "killed"))

    def _show_line(self, line: str, markup: str) -> None:
        from IPython.display import display

        bundle = {"text/plain": line, "text/html": markup}
        if self.line_handle is None:
            self.line_handle = display(bundle, raw=True, display_id=True)
        else:
            self.line_handle.update(bundle, raw=True)

    def _show_figure(self, progress: Progress, folded: bool = False) -> None:
        """Draw, or do without: an interrupt may have caught matplotlib half imported; a run outlives its picture."""
        self.figure_at, self.drawn_step = time.monotonic(), progress.steps[-1]
        with contextlib.suppress(Exception):
            self._draw(progress, folded)

    def _draw(self, progress: Progress, folded: bool) -> None:
        from IPython.display import display

        self.figure = self.figure or LiveFigure(progress.vocab_size)
        start = time.monotonic()  # making the axes loads matplotlib, once
        picture = self.figure.draw(progress)
        markup = picture._repr_html_()
        if folded:
            markup = f"<details><summary>the curves while it trained</summary>{markup}</details>"
        bundle = {"text/plain": picture.alt, "text/html": markup}
        if self.figure_handle is None:
            self.figure_handle = display(bundle, raw=True, display_id=True)
        else:
            self.figure_handle.update(bundle, raw=True)
        self.figure_at = time.monotonic()
        self.figure_seconds = max(FIGURE_SECONDS, FIGURE_SHARE * (self.figure_at - start))


class LiveFigure:
    """Loss and throughput side by side; the axes are made once and only their lines change."""

    def __init__(self, vocab_size: int | None):
        self.figure, (self.loss_axes, self.speed_axes) = style.new_figure(1, 2, width=7.2, height=2.4)
        colour = style.RUN_COLOURS[0]
        (self.loss,) = self.loss_axes.plot([], [], color=colour)
        (self.speed,) = self.speed_axes.plot([], [], color=colour)
        self.guessing = math.log(vocab_size) if vocab_size else None
        if vocab_size:
            self.loss_axes.axhline(self.guessing, **style.REFERENCE)
            at = {"xycoords": self.loss_axes.get_yaxis_transform(), "ha": "right", "va": "bottom", "fontsize": 9}
            self.loss_axes.annotate("ln V", (0.99, self.guessing), **at)
        self.loss_axes.set_title("loss (nats per token)")
        self.speed_axes.set_title("tokens/s of all ranks")
        style.count_steps(self.loss_axes)
        style.count_steps(self.speed_axes)
        self.speed_axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")

    def draw(self, progress: Progress) -> style.Picture:
        every = max(1, len(progress.steps) // MAX_POINTS)
        points = slice(len(progress.steps) % every if every > 1 else 0, None, every)
        self.loss.set_data(progress.steps[points], progress.losses[points])
        self.speed.set_data(progress.steps[1:], progress.tokens_per_second[1:])
        for axes in (self.loss_axes, self.speed_axes):
            axes.relim()
            axes.autoscale_view()
            axes.set_xlim(0, progress.last_step)
        self.speed_axes.set_ylim(0, 1.1 * max(progress.tokens_per_second[1:], default=1))
        alt = f"Loss and tokens per second: {progress.summary()}."
        if self.guessing:
            alt += f" The dashed line, ln V = {self.guessing:.2f}, is the loss of guessing."
        return style.Picture(self.figure, alt)


def bar(progress: Progress) -> str:
    """The line with an HTML progress bar before it."""
    share = progress.steps[-1] / progress.last_step if progress.steps else 0.0
    value = f'value="{share:.3f}"' if progress.steps else ""
    label = html.escape(progress.line())
    return f'<progress max="1" {value} style="width: 12em" aria-label="{label}"></progress> <code>{label}</code>'


def in_jupyter() -> bool:
    """Whether this code runs in a kernel, with somebody (or nbclient) who shows what it displays."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def view():
    """The view that suits where this runs."""
    if in_jupyter():
        return JupyterView()
    return TerminalView() if sys.stdout.isatty() else PlainView()
