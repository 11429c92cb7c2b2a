"""transformers beside the CPU device: the trap that conversions stay out of by asking it in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
import tiny_models

from helpers.machine import PROJECT
from helpers.weights import folders

LOADED = """
import json, sys
folder, device_on = sys.argv.pop(1), sys.argv.pop(1) == "on"
import torch
if device_on:
    from helpers.ranks.cpu import device
    device.switch_on()
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(folder)
print(json.dumps(model.model.rotary_emb.inv_freq.tolist()))
"""


@pytest.fixture(scope="module")
def folder(small_corpus, tmp_path_factory):
    return tiny_models.save("biased_llama", tmp_path_factory.mktemp("trap") / "tiny", small_corpus.tokenizer_path)


def frequencies(folder, device: str) -> list[float]:
    """How the rotary positions turn in a model that a process of its own loaded, with the CPU device on or off."""
    command = [sys.executable, "-c", LOADED, str(folder), device]
    variables = os.environ | {"PYTHONPATH": str(PROJECT), "MEGATRON_CPU": "1"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.train
def test_with_the_cpu_device_on_transformers_leaves_its_frequencies_unset(folder):
    """Should this ever fail, transformers or the device has changed, and one process would do."""
    right = [500000.0 ** (-2 * i / 16) for i in range(8)]
    assert frequencies(folder, "off") == pytest.approx(right)
    assert frequencies(folder, "on") != pytest.approx(right)


@pytest.mark.train
def test_what_an_export_is_compared_with_is_not_touched_by_it(folder, tmp_path, monkeypatch):
    """Asked as an export asks, from a machine that trains on its CPU: the answer is the right one."""
    import shutil

    import torch
    from safetensors.torch import save_file

    copied = shutil.copytree(folder, tmp_path / "copied")
    tokens = torch.arange(48).reshape(2, 24)
    with torch.no_grad():
        logits = tiny_models.build("biased_llama")(tokens).logits
    save_file({"tokens": tokens, "logits": logits}, copied / "probe.safetensors")
    monkeypatch.setenv("MEGATRON_CPU", "1")
    told = folders.ask_transformers("compare", copied)
    assert told["largest_difference"] < 1e-5 < told["scale"] and not told["missing"]
