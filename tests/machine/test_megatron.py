import gc
import sys

import pytest

from helpers.machine import quietly


def test_what_megatron_compiles_is_kept_and_nobody_looks_for_garbage_meanwhile(monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(KeyError), quietly():
        assert not sys.dont_write_bytecode and not gc.isenabled()
        raise KeyError
    assert sys.dont_write_bytecode and gc.isenabled()
