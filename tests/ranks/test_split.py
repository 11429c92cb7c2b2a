"""Attention splits as Transformer Engine does, however early Megatron was imported."""

import sys
import types

from helpers.ranks.repairs import split


def test_the_split_is_transformer_engines_however_early_megatron_was_imported(monkeypatch):
    from megatron.core.transformer import attention

    names = ("transformer_engine", "transformer_engine.pytorch", "transformer_engine.pytorch.utils")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    theirs = types.SimpleNamespace(apply=object())
    sys.modules[names[-1]].SplitAlongDim = theirs
    monkeypatch.setattr(attention, "SplitAlongDim", None)
    split.apply()
    assert attention.SplitAlongDim is theirs.apply
