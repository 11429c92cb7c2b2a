"""Megatron's own answers for the tests: one process of `count_with_megatron.py` a call."""

import json
import os
import subprocess
import sys
from dataclasses import asdict

from helpers.machine import PROJECT
from helpers.recipes import Layout
from helpers.recipes.settings import Model


def ask_megatron(questions: list[dict]) -> list:
    """The answers, in order. A question names a function of `count_with_megatron.py` under "what" and its arguments."""
    out = subprocess.run(
        [sys.executable, PROJECT / "tests" / "count_with_megatron.py"],
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"},
        input=json.dumps(questions),
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr[-3000:]
    return json.loads(out.stdout.splitlines()[-1])


def described(model: Model) -> dict:
    return asdict(model) | {"ffn_size": model.ffn_size, "query_groups": model.query_groups}


def placed(layout: Layout) -> dict:
    return asdict(layout) | {"world_size": layout.world_size}
