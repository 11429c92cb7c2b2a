"""Megatron's own parser as the judge of which flags there are, and of what may stand behind them."""

import json
import subprocess
import sys
from functools import cache

LIST_FLAGS = """
import argparse, json
from megatron.training.arguments import add_megatron_arguments
parser = argparse.ArgumentParser()
add_megatron_arguments(parser)
print("FLAGS " + json.dumps({
    flag: (action.nargs, getattr(action.type or str, "__name__", "?"), list(map(str, action.choices or ())))
    for action in parser._actions for flag in action.option_strings if flag.startswith("--")
}))
"""


@cache
def arguments() -> dict[str, tuple]:
    """Flag → (nargs, name of the type, choices) of every flag that it takes (megatron/training/arguments.py), asked in
    another process: about 10 s."""
    command = [sys.executable, "-W", "ignore", "-c", LIST_FLAGS]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    line = next(line for line in answer.stdout.splitlines() if line.startswith("FLAGS "))
    return {flag: tuple(one) for flag, one in json.loads(line.removeprefix("FLAGS ")).items()}


def flags() -> frozenset[str]:
    return frozenset(arguments())
