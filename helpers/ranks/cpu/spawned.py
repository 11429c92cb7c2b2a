"""Processes that a rank spawns, such as the writers of `--async-save`: they start anew, and need the device as well."""

import functools
import multiprocessing.spawn

SWITCH_ON = "from helpers.ranks.cpu import device; device.switch_on(); "


def switch_on_too() -> None:
    """Let every process that `multiprocessing` spawns switch the device on before it does anything else."""
    original = multiprocessing.spawn.get_command_line

    @functools.wraps(original)
    def get_command_line(**options) -> list[str]:
        command = original(**options)
        program = command.index("-c") + 1
        return [*command[:program], SWITCH_ON + command[program], *command[program + 1 :]]

    multiprocessing.spawn.get_command_line = get_command_line
