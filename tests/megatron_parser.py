"""Megatron's own parser as the judge of which flags there are."""

import subprocess
import sys
from functools import cache

LIST_FLAGS = """
import argparse
from megatron.training.arguments import add_megatron_arguments
parser = argparse.ArgumentParser()
add_megatron_arguments(parser)
print(*(flag for action in parser._actions for flag in action.option_strings))
"""


@cache
def flags() -> frozenset[str]:
    """Every flag that it takes (megatron/training/arguments.py), asked in another process: about 10 s."""
    command = [sys.executable, "-W", "ignore", "-c", LIST_FLAGS]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return frozenset(flag for flag in answer.stdout.split() if flag.startswith("--"))
