"""When is a silent run a hanging one?"""

from helpers import logs

QUIET_START_SECONDS = 1200  # before the first step: imports, index building, compiling
QUIET_PHASE_SECONDS = 1200  # evaluating, or writing a checkpoint


class HangWatch:
    """Decides from the log and the clock (seconds) whether training still goes forward.

    Silence is measured since the last output. It may last `timeout_seconds` between steps, or three times the longest
    gap between two steps so far; before the first two steps, and while a checkpoint is written or the model
    evaluated (every `eval_interval` steps and at the end), at least 20 minutes.
    """

    def __init__(self, timeout_seconds: float, now: float, eval_interval: int = 0):
        self.timeout_seconds, self.eval_interval = timeout_seconds, eval_interval
        self.steps = 0
        self.longest_gap = 0.0
        self.last_output = self.last_step = now
        self.slow_phase = self.at_end = False

    def hear(self, text: str, now: float) -> None:
        """Take new log text into account."""
        self.last_output = now
        for line in text.splitlines():
            if step := logs.parse_step(line):
                if self.steps and not self.slow_phase:
                    self.longest_gap = max(self.longest_gap, now - self.last_step)
                self.steps += 1
                self.last_step = now
                evaluates = self.eval_interval and step.step % self.eval_interval == 0
                self.at_end = step.step == step.train_iters
                self.slow_phase = bool(evaluates) or self.at_end
            elif "saving checkpoint" in line:
                self.slow_phase = True
            elif ("successfully saved" in line or "validation loss at" in line) and not self.at_end:
                self.slow_phase = False

    def allowed_seconds(self) -> float:
        """How long the silence may last now."""
        if self.steps < 2:
            return max(self.timeout_seconds, QUIET_START_SECONDS)
        allowed = max(self.timeout_seconds, 3 * self.longest_gap)
        return max(allowed, QUIET_PHASE_SECONDS) if self.slow_phase else allowed

    def is_hanging(self, now: float) -> bool:
        return now - self.last_output > self.allowed_seconds()
