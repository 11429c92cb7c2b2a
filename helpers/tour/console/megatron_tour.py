"""The command `megatron-tour`. Its name is our own, so that it can put our `helpers` before any other package of that
name: another one on PYTHONPATH would be imported in its place, here and in the notebooks' kernels."""

import os
import sys
from pathlib import Path

PROJECT = str(Path(__file__).resolve().parents[3])


def main() -> int:
    sys.path.insert(0, PROJECT)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (PROJECT, os.environ.get("PYTHONPATH"))))
    from helpers.tour import command

    return command.main()
