"""The table of baselines takes its numbers from the records, and compares like with like."""

import json

import pytest
from records import recorded

from helpers import recipes
from helpers.runs import baselines, records


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDED", tmp_path / "recorded")
    (tmp_path / "recorded" / "h200" / "baselines").mkdir(parents=True)
    return tmp_path / "recorded" / "h200" / "baselines"


def keep(path, **content) -> None:
    path.write_text(json.dumps(content))


def test_nothing_recorded_is_a_sentence(folder):
    assert "No baseline is recorded yet" in repr(baselines.table("h200"))


def test_nvidias_script_is_compared_with_ours_of_the_same_flags(folder):
    speeds = {"ours": 110, "nvidia": 100, "nvidia torchrun": 88}
    apart = {"ours to nvidia": 2e-4, "ours to ours": 1e-4, "nvidia to nvidia": None}
    keep(folder / "against_nvidia.json", tokens_per_second=speeds, largest_loss_difference=apart)
    table = baselines.table("h200")
    assert table["speed-up of ours"].tolist() == [1.1, 1.25]
    assert table["losses"].iloc[0] == "largest difference 0.0002; ours to itself 0.0001"


def test_transformers_is_compared_with_our_fastest_of_that_batch_and_dropout(folder, tmp_path):
    recipe = recipes.gpt3_345m()
    tokens = 32 * 1024
    for name, seconds, changes in (
        ("gpt3_345m_3_slow", 0.4, {}),
        ("gpt3_345m_7_fast", 0.2, {}),
        ("gpt3_345m_8_large", 0.1, {"micro_batch_size": 64, "global_batch_size": 64}),
        ("gpt3_345m_9_no_dropout", 0.1, {"dropout": 0.0}),
    ):
        recorded(tmp_path, recipe.with_(name=name, **changes), seconds)
    keep(folder / "transformers_gpt2.json", batch=[32, 32, 1024], dropout=0.1, tokens_per_second=tokens / 0.25)
    keep(folder / "transformers_gpt2_large.json", batch=[128, 128, 1024], dropout=0.1, tokens_per_second=1)
    (row,) = baselines.table("h200").to_dict("records")
    assert row["ours"] == round(tokens / 0.2) and row["speed-up of ours"] == 1.25


def test_the_committed_records_are_shown():
    assert (baselines.table("h200")["speed-up of ours"] > 0.99).all()
