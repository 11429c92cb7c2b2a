"""How an error looks in a cell: what a `raise` of ours tells in words, and an interrupt, without frames of our modules.

Any other error that comes out of them is a bug: it keeps its whole traceback, for whoever mends it.
"""

import linecache
import os
import traceback
from pathlib import Path
from types import TracebackType

OURS = str(Path(__file__).resolve().parents[1]) + os.sep


def set_in_ipython() -> None:
    """From now on this kernel or terminal shows errors so. Outside IPython, or where somebody else does: nothing."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell and not shell.custom_exceptions:
        shell.set_custom_exc((Exception, KeyboardInterrupt), _show)


def is_told(error: BaseException) -> bool:
    """Whether an error that came through our modules is one of which the words say all."""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    if isinstance(error, KeyboardInterrupt):
        return any(frame.filename.startswith(OURS) for frame in traceback.extract_tb(error.__traceback__))
    return bool(frames) and frames[0].filename.startswith(OURS) and _raises(frames[0])


def _raises(frame: traceback.FrameSummary) -> bool:
    return linecache.getline(frame.filename, frame.lineno).lstrip().startswith("raise ")


def _show(shell, kind, error: BaseException, frames: TracebackType, tb_offset=None) -> None:
    if not is_told(error):
        shell.showtraceback((kind, error, frames), tb_offset=tb_offset)
        return
    cause, hidden = error.__cause__, error.__suppress_context__
    error.__cause__ = None  # hides what was caught before, too
    try:
        shell.showtraceback((kind, error, _up_to_ours(frames)), tb_offset=tb_offset)
    finally:
        error.__cause__, error.__suppress_context__ = cause, hidden


def _up_to_ours(frames: TracebackType | None) -> TracebackType | None:
    """The frames before the first of our modules: IPython's, and the learner's."""
    if frames is None or frames.tb_frame.f_code.co_filename.startswith(OURS):
        return None
    return TracebackType(_up_to_ours(frames.tb_next), frames.tb_frame, frames.tb_lasti, frames.tb_lineno)
