"""Where Transformer Engine's extension and PyTorch's CUDA libraries are found, and what a launch sets for them."""

import sys

import pytest
from machines import ONE_H200

from helpers import recipes
from helpers.machine import cuda_libraries


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site-packages of its own, first on the path."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


@pytest.mark.parametrize("place", [".", "transformer_engine", "transformer_engine/wheel_lib"])
def test_the_extension_is_found_in_each_place_where_a_build_puts_it(site, place):
    (site / "transformer_engine" / "wheel_lib").mkdir(parents=True)
    (site / "transformer_engine" / "__init__.py").write_text("")
    assert not cuda_libraries.transformer_engine_installed(), "without its extension it is of no use"
    (site / place / "transformer_engine_torch.cpython-312-x86_64-linux-gnu.so").write_text("")
    assert cuda_libraries.transformer_engine_installed()


def test_the_wheels_libraries_come_before_the_learners(site, monkeypatch):
    wheel = site / "nvidia" / "cudnn"
    (wheel / "lib").mkdir(parents=True)
    (wheel / "__init__.py").write_text("")
    monkeypatch.setattr(cuda_libraries, "cudnn_wheel", lambda: str(wheel))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/my/libraries")
    monkeypatch.setenv("CUDNN_HOME", "/my/cudnn")
    merged = cuda_libraries.merged(cuda_libraries.variables())
    assert merged["LD_LIBRARY_PATH"] == f"{wheel}/lib:/my/libraries"
    assert merged["CUDNN_HOME"] == "/my/cudnn", "what the learner has set stays"


def test_a_container_keeps_its_own_libraries(monkeypatch):
    monkeypatch.setattr(cuda_libraries, "cudnn_wheel", lambda: None)
    assert cuda_libraries.variables() == {}
    assert "CUDNN_HOME" not in recipes.gpt3_345m().command(None, ONE_H200).environment


def test_a_gpu_run_names_its_variables_with_their_reasons(monkeypatch):
    monkeypatch.setattr(cuda_libraries, "cudnn_wheel", lambda: "/env/nvidia/cudnn")
    split = recipes.gpt3_345m().with_(tensor_parallel=2, cuda_graph=True)
    variables = split.command(None, ONE_H200).environment
    assert variables["CUDA_DEVICE_MAX_CONNECTIONS"][0] == "1"
    assert variables["NCCL_GRAPH_REGISTER"][0] == "0"
    assert variables["CUDNN_HOME"][0] == "/env/nvidia/cudnn"
    assert all(why for _, why in variables.values())
    spread = recipes.llama3_8b().with_(processes=2, overlap_communication=True)
    assert spread.command(None, ONE_H200).environment["CUDA_DEVICE_MAX_CONNECTIONS"][0] == "32"
    exact = recipes.gpt3_345m().with_(dtype="fp32").command(None, ONE_H200).environment
    assert exact["NVIDIA_TF32_OVERRIDE"][0] == "0" and "NVIDIA_TF32_OVERRIDE" not in variables
