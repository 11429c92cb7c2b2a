"""Table 401 has all its rows, ours stand where they were run, and each of its claims is what notebook 06 says."""

import pytest

from helpers import plots
from helpers.lessons import table_401


def test_it_has_every_row_and_a_dash_for_what_was_not_run(monkeypatch):
    table = table_401.beside_ours()
    assert list(table.index) == [1, 2, 4, 8, 16, 32]
    assert list(table["a micro-batch", "samples"]) == [32, 16, 8, 4, 2, 1]
    h100 = table["PP2, two H100s"]
    assert list(h100["measured"]) == ["–", "616", "550", "650", "1,039", "2,192"]
    assert list(h100["one slot"]) == ["–", "205", "110", "72", "61", "66"]
    assert list(table["PP2, two H200s"]["measured"]) == ["–", "600", "558", "597", "1,157", "2,053"]
    monkeypatch.setattr(table_401.records, "recorded", lambda *_: None)
    assert set(table_401.beside_ours()["PP2, two H100s"]["measured"]) == {table_401.NOT_RUN}


def test_a_batch_cut_finer_turns_at_eight_and_micro_batches_of_one_size_never():
    published, planned, steady = table_401.by_micro_batches().values()
    assert min(published, key=published.get) == min(planned, key=planned.get) == 8
    assert list(steady.values()) == sorted(steady.values(), reverse=True)


def test_chunks_are_counted_not_their_layers_and_have_an_optimum():
    measured, expected = table_401.by_chunks()
    four, two = measured.values()
    assert four == {1: 887, 2: 710, 3: 665, 6: 680, 9: 745}  # 18, 9, 6, 3 and 2 layers in a chunk
    assert min(two, key=two.get) == 1 and list(two) == [1, 3, 9]
    alone, _ = expected.values()
    assert alone[2] == pytest.approx(887 * 1.375 / 1.75) and min(alone, key=alone.get) == 9
    assert "v=3 665" in plots.against_chunks(measured, expected).alt
