"""How long a notebook takes is told from its last execution on a machine of the same kind."""

import json
from dataclasses import replace

import pytest
from machines import ONE_H200

from helpers.lessons import catalogue
from helpers.machine import CPU


@pytest.fixture
def notebook(tmp_path):
    path = tmp_path / "00_page.ipynb"
    minutes = {"2-core CPU": 0.5, "2-core CPU without AVX-512": 0.9, "NVIDIA H200": 0.3}
    path.write_text(json.dumps({"metadata": {"megatron_tour": minutes}}))
    return path


def test_a_cpu_without_avx_512_has_its_own_minutes(notebook):
    slower = replace(CPU, fast_cpu_bf16=False)
    assert catalogue.timed_as(CPU) == "2-core CPU" and catalogue.timed_as(ONE_H200) == "NVIDIA H200"
    assert catalogue.duration(notebook, slower) == "0.9 min (2-core CPU without AVX-512)"
    assert catalogue.duration(notebook, CPU) == "0.5 min (2-core CPU)"
    assert catalogue.timed_as(replace(slower, architecture="aarch64")) == "2-core CPU"


def test_another_cpu_hears_that_it_was_not_measured(notebook):
    told = catalogue.duration(notebook, replace(CPU, cpu_count=8))
    assert told == "0.5 min (2-core CPU; not measured on this one)"
