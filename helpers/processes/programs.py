"""Programs on ranks, started, waited for and, where one fails, told in words: which rank, why, and the fix."""

import ast
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from helpers.machine import PROJECT, Machine, given, here, short_path
from helpers.machine.variables import device_environment
from helpers.processes import checkpoints, control, diagnosis, logs, run_directory
from helpers.show import bounds
from helpers.show.arguments import checked
from helpers.show.message import quiet
from helpers.show.numbers import as_typed

# What the same cell would only run into again.
LOADED_WRONGLY = ("started from random weights", "loaded another checkpoint", "damaged checkpoint")


class TrainingFailed(RuntimeError):
    """A run that did not finish: which rank failed, its own last traceback, the cause and the fix where known.

    Attributes:
        rank: the rank that failed first; None when torchrun itself did.
        traceback: that rank's last Python traceback, "" when it left none (it was killed, say).
        cause, fix: from `helpers.processes.diagnosis`; None for a symptom that is not in its table.
        run_directory: where `log.txt` lies.
    """

    def __init__(self, run_directory: Path, headline: str, rank: int | None, traceback: str, found, resume: str):
        self.run_directory, self.rank, self.traceback = Path(run_directory), rank, traceback
        self.cause, self.fix = (found.cause, found.fix) if found else (None, None)
        parts = [headline]
        if found:
            parts.append(f"Cause: {found.cause}\nFix: {found.fix}")
        if traceback:
            parts.append(f"The rank's last traceback:\n{traceback}" if rank is not None else traceback)
        parts.append(f"Everything the ranks said: {short_path(self.run_directory / 'log.txt')}")
        if resume:
            parts.append(resume)
        super().__init__("\n\n".join(parts))

    def _render_traceback_(self) -> list[str]:
        """In Jupyter: the message alone, without the frames of this module."""
        return [f"{type(self).__name__}: {self}"]


@checked
def ranks(
    script: Path | str,
    count: Annotated[int, bounds.PROCESSES],
    *arguments,
    machine: Machine | None = None,
    timeout_seconds: Annotated[float, bounds.SECONDS] = 300,
    variables: dict[str, tuple[str, str]] | None = None,
    hear: Callable[[str], None] | None = None,
) -> str:
    """Run `helpers/ranks/<script>.py`, or a `.py` file of yours, in `count` processes under torchrun.

    Returns what they printed.

    The same rules of life and death as in `train` hold. `arguments` go to the script as they are; `variables` (name →
    (value, why), as a recipe's command has them) are set for it where the learner has not set them. `hear` is given
    what they print while they run, in whole lines.

    Raises:
        FileNotFoundError: there is no such script. ValueError: it is no Python that can be read.
        OSError: nothing can be written where runs go.
        ValueError: one of `arguments` cannot be a word of a command line, or a variable's name none.
        TrainingFailed: a rank failed, or `timeout_seconds` were not enough.
    """
    run_directory.require_names(variables or {})
    values = [value for value, _ in (variables or {}).values()]
    for word in map(str, (*arguments, *values)):
        if why := run_directory.why_no_word(word):
            raise ValueError(f"launch.ranks: {as_typed(word)} is handed to the script. {why}")
    machine = machine or here()
    own = str(script).endswith(".py")
    path = given(script, "launch.ranks({})")
    path = path if own else PROJECT / "helpers" / "ranks" / f"{script}.py"
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no {path} for torchrun to start: give the path of a .py file that is there.")
    path = path.resolve()
    if why := why_no_script(path):
        raise ValueError(f"launch.ranks({str(script)!r}): {why}")
    directory = run_directory.scratch(path.stem)
    program = [sys.executable, "-m", "helpers.ranks.torchrun", "--nproc-per-node", str(count)]
    program += [str(path), *map(str, arguments)]
    threads = {"OMP_NUM_THREADS": ("1", "what torchrun sets by itself, and warns of")}
    environment = threads | device_environment(machine) | (variables or {})
    run_directory.write_command(directory, f"{path.name} on {count} ranks", program, environment, {})
    with control.held(directory) as lock:
        supervisor = control.start(directory, lock, processes=count, hang_timeout_seconds=timeout_seconds, trains=False)
    try:
        deadline, tail = time.monotonic() + timeout_seconds, logs.Tail(directory / "log.txt")
        while control.state(directory) == "running" and time.monotonic() < deadline:
            time.sleep(0.05)
            if hear and (said := tail.read()):
                hear(said)
        if hear and (said := tail.read(final=True)):
            hear(said)
        if control.state(directory) == "running":
            control.stop(directory)
            headline = f"{path.name} did not end within {timeout_seconds:.0f} s."
            raise TrainingFailed(directory, headline, None, "", None, "")
        raise_if_failed(directory, path.name)
        text = (directory / "log.txt").read_text(errors="replace")
        shutil.rmtree(directory, ignore_errors=True)
        return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(logs.LAUNCH_MARK))
    except BaseException as error:
        control.stop(directory)
        if isinstance(error, KeyboardInterrupt):
            quiet(error, f"KeyboardInterrupt: stopped, and no process of {path.name} is left.")
        raise
    finally:
        supervisor.close()


def why_no_script(path: Path) -> str | None:
    """Why torchrun cannot start a file on its ranks, in a sentence; None for Python that can be read."""
    if not os.path.isfile(path):
        return f"There is no file {path} for torchrun to start."
    if path.suffix != ".py":
        return f"{path.name} is no Python script: the name of one ends with .py."
    try:
        ast.parse(path.read_bytes())
    except OSError as refusal:
        return f"{path} cannot be read: {refusal.strerror}."
    except SyntaxError as odd:
        where = f", line {odd.lineno}" if odd.lineno else ""
        return f"{path} is no Python that could run{where}: {odd.msg}."
    except (ValueError, RecursionError, MemoryError) as odd:
        return f"{path} is no Python that could run: {odd}."
    return None


def raise_if_failed(directory: Path, name: str) -> None:
    status = control.read_status(directory)
    if status["state"] == "finished":
        return
    text = ""
    with contextlib.suppress(FileNotFoundError), open(directory / "log.txt", "rb") as file:
        file.seek(max(0, status.get("log_start", 0)))
        text = file.read().decode(errors="replace")
    rank = status.get("failing_rank")
    node = status.get("failing_node")
    who = f"rank {rank}{f' on {node}' if node else ''} " if rank is not None else ""
    headline = f"{name} {status['state']}: {who}{status.get('reason') or ''}"
    found = None
    if status["state"] == "failed":
        found = diagnosis.diagnose("\n".join([text, status.get("traceback", ""), status.get("reason") or ""]))
    resume = "" if found and found.name in LOADED_WRONGLY else how_to_resume(directory)
    raise TrainingFailed(directory, headline, rank, status.get("traceback", ""), found, resume)


def how_to_resume(directory: Path) -> str:
    step = checkpoints.latest(directory / "checkpoints")
    return "" if step is None else f"Starting the same cell again picks the run up after step {step}."
