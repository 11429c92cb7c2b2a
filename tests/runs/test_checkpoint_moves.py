"""Which change of layout loads a checkpoint: three cells of the recorded table, tried again.

Others are in ranks/test_pretrain_gpt.py (distributed optimizer to TP), lessons/test_sharding.py (FSDP to itself).
"""

import checkpoint_moves as moves
import pytest
import real_runs

from helpers.runs import checkpoint_moves as record

THERE, AGAIN = "DP2", ["PP2", "DP2+DistOpt", "DP2+FSDP"]
ROUNDING = 9.5e-7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moves")
    real_runs.write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def saved(folder):
    return moves.save(folder, THERE)


@pytest.mark.train
@pytest.mark.parametrize("here", AGAIN)
def test_a_cell_of_the_table_is_what_it_says(here, folder, saved):
    found, expected = moves.move(folder, THERE, here, saved), record.read()[THERE][here]
    if "difference" in expected:
        assert found["difference"] <= ROUNDING
    else:
        assert found == expected


def test_every_layout_that_saves_is_in_the_table_and_goes_on_from_its_own_checkpoint():
    table, read = record.table(), record.read()
    assert list(table.index) == list(read) and set(read) <= set(table.columns)
    for name in read:
        assert read[name][name]["difference"] <= ROUNDING, name
        assert table.loc[name, name].startswith(record.LOADS)


def test_what_loads_continues_within_rounding_and_what_does_not_says_why():
    for found in record.read().values():
        for move in found.values():
            assert move.get("difference", 0) <= ROUNDING
            assert "difference" in move or len(move["says"]) > 3


def test_without_a_record_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "RECORD", tmp_path / "none.json")
    assert "recorded yet" in str(record.table()) and "recorded yet" in str(record.reasons())


def test_each_error_has_a_number_and_a_reason_and_the_table_has_that_number():
    reasons, table, read = record.reasons(), record.table(), record.read()
    assert list(reasons.index) == list(range(1, len(reasons) + 1))
    assert not reasons["stands in the way"].str.contains("not understood").any()
    for there, found in read.items():
        for here, move in found.items():
            if "says" in move:
                number = int(table.loc[there, here].rpartition("(")[2].rstrip(")"))
                assert reasons.loc[number, "Megatron stops with"] == move["says"]
    assert table.loc["DP2", "DP2+FSDP"] == "✗ format (2)"
