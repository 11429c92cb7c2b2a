"""Processes that a rank starts anew, such as the writer of `--async-save`: they need the device as well.

What `multiprocessing` sends such a process first, by "spawn" or "forkserver", is a dictionary. `tell_them` puts a value
into it that switches the device on where it is read.
"""

import functools
import multiprocessing.spawn
import sys


class Device:
    """Pickled, it is a call of `switch_on_like_the_parent`."""

    def __reduce__(self):
        return switch_on_like_the_parent, (sys.path,)


def switch_on_like_the_parent(path: list[str]) -> None:
    """Switch the device on in this process, for the Megatron that is first on the parent's `path`."""
    from helpers.ranks.cpu import device

    sys.path[:] = path
    device.switch_on()


def tell_them() -> None:
    """Let every process that this one starts anew switch the device on before it imports the program."""
    original = multiprocessing.spawn.get_preparation_data

    @functools.wraps(original)
    def get_preparation_data(name: str) -> dict:
        return {**original(name), "device": Device()}

    multiprocessing.spawn.get_preparation_data = get_preparation_data
