"""A command that this process owns, with everything that comes of it: however it ends, nothing of it lives on."""

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

import psutil

from helpers.processes import control, hang


class Owned:
    """A running command, in a session of its own. It gets SIGTERM should this process be killed.

    Its descendants that lose their parent become children of this process, which buries them: it must not have other
    children, and its main thread makes the command.
    """

    def __init__(self, words: Sequence[str], environment: dict[str, str], output=None):
        control.adopt_orphans()
        self.process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_before,
        )

    @property
    def code(self) -> int | None:
        """How it ended, a signal as a negative number; None while it runs."""
        return self.process.poll()

    def living(self) -> list[psutil.Process]:
        """What is left of it: itself, its descendants and the orphans among them."""
        self.bury_orphans()
        return [process for process in psutil.Process().children(recursive=True) if _lives(process)]

    def bury_orphans(self) -> None:
        """Reap adopted processes; the command itself is left to Popen."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            if ended.si_pid == self.process.pid:
                self.process.poll()
            else:
                os.waitpid(ended.si_pid, 0)

    def end(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """SIGTERM to the command, which passes it on; SIGKILL to each that is still there after so many seconds.

        One that was stopped by a signal (SIGSTOP) would hear of neither: it is let go on.
        """
        if self.code is None:
            self.process.terminate()
        told: set[int] = set()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (living := self.living()):
            for process in living:
                with contextlib.suppress(psutil.NoSuchProcess):
                    if process.status() == psutil.STATUS_STOPPED:
                        process.resume()
            if self.code is not None:  # orphans: nobody passes the signal on to them
                for process in living:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        if process.pid not in told:
                            process.terminate()
                        told.add(process.pid)
            time.sleep(0.1)
            meanwhile()
        while survivors := self.living():
            control.kill(survivors)
            self.bury_orphans()
        self.process.wait()


def ranks_of(command: Owned) -> dict[int, psutil.Process]:
    """The living rank processes by rank, of all torchruns that came of the command."""
    return hang.ranks_among(command.living())


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _before() -> None:
    """In the child, before `exec`."""
    control.die_with_parent(signal.SIGTERM)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
