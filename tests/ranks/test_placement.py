"""A model made in main memory is on the GPU before it is wrapped; FSDP2, which moves it itself, is left alone."""

import pytest
import torch

from helpers.ranks.repairs import placement

WRAP = "prepare_existing_model_chunks_for_distributed_training"


@pytest.fixture
def dist_utils():
    from megatron.training.models import dist_utils  # five seconds, which only those should wait for who run this

    return dist_utils


class Chunk:
    def __init__(self):
        self.device = "cpu"

    def cuda(self, number):
        self.device = f"cuda:{number}"


def test_a_model_is_moved_before_it_is_wrapped(dist_utils, monkeypatch):
    def wrap(model_list, config, ddp_config=None, use_torch_fsdp2=False):
        return [(chunk.device, config, ddp_config, use_torch_fsdp2) for chunk in model_list]

    monkeypatch.setattr(dist_utils, WRAP, wrap)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    placement.apply()
    wrapped = getattr(dist_utils, WRAP)
    assert wrapped([Chunk(), Chunk()], "config", ddp_config="ddp") == [("cuda:1", "config", "ddp", False)] * 2
    assert wrapped([Chunk()], "config", use_torch_fsdp2=True) == [("cpu", "config", None, True)]


def test_megatron_calls_it_by_that_name(dist_utils):
    """Or moving would silently stop with the next version."""
    assert WRAP in dist_utils.unimodal_build_distributed_models.__code__.co_names
