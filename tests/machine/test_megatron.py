import gc
import sys

import pytest

from helpers.machine import megatron_definitions, megatron_source, quietly


def test_what_megatron_compiles_is_kept_and_nobody_looks_for_garbage_meanwhile(monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(KeyError), quietly():
        assert not sys.dont_write_bytecode and not gc.isenabled()
        raise KeyError
    assert sys.dont_write_bytecode and gc.isenabled()


def test_a_definition_is_had_without_what_its_file_imports():
    before = "megatron.core.parallel_state" in sys.modules
    names = ("RankGenerator", "generate_masked_orthogonal_rank_groups")
    generator = megatron_definitions("core/parallel_state.py", *names).RankGenerator
    assert generator(tp=2, ep=1, dp=2, pp=1, cp=1, order="tp-dp").get_ranks("dp") == [[0, 2], [1, 3]]
    assert ("megatron.core.parallel_state" in sys.modules) == before
    with pytest.raises(AttributeError, match="parallel_state.py defines no no_such_name"):
        megatron_definitions("core/parallel_state.py", "no_such_name")
    with pytest.raises(ModuleNotFoundError, match="leaves Megatron"):
        megatron_source("core/../../torch/version.py")
