"""The record of failures on Slurm: every failure that its program makes, none that left a process or took too long."""

import slurm_failures as trials

from helpers.runs import slurm_failures as record


def test_every_failure_is_recorded_and_left_nothing():
    found = record.read()
    assert list(found) == list(trials.TRIALS)
    for name, row in found.items():
        assert row["left"] == [] and row.get("gone_seconds", 0) <= 35 and row["told"], name


def test_the_table_has_a_row_a_failure_and_says_what_goes_on_by_itself():
    table = record.table()
    assert list(table.index) == list(record.read())
    assert table["goes on by itself"]["a node dies"].startswith("after step")
    assert table["goes on by itself"]["scancel"] == "no"
    assert "rank 1 on n2 was killed by SIGKILL" in table["what you are told"]["a rank is killed"]
