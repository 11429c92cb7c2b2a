"""A second user of this machine, for tests that root runs: only root can become another one."""

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NOBODY = 65534
only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that others may enter: pytest's own are their owner's alone."""
    folder = Path(tempfile.mkdtemp(prefix="others-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody(ask: Callable[[], object]) -> str:
    """What `ask` answers to the user nobody, in a process of its own: as text, or the kind and words of its refusal."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():  # the child looks at a few files and ends: no thread of ours is missed there
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = str(ask())
        except BaseException as refusal:
            answer = f"{type(refusal).__name__}: {refusal}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as answered:
        answer = answered.read()
    os.waitpid(child, 0)
    return answer
