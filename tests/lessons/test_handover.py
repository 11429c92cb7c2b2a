"""Whether two folders hold the same weights, in words."""

import json

import pytest

from helpers.lessons import handover


@pytest.fixture
def folders(tmp_path):
    import torch
    from safetensors.torch import save_file

    def write(name, **tensors):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
        return tmp_path / name

    one = torch.arange(6.0).reshape(2, 3)
    return {
        "first": write("first", a=one, b=one + 1),
        "again": write("again", a=one, b=one + 1),
        "another bit": write("another", a=one, b=one + 1.0000001),
        "turned": write("turned", a=one.t().contiguous(), b=one + 1),
        "shorter": write("shorter", a=one.bfloat16(), b=one + 1),
        "fewer": write("fewer", a=one),
    }


@pytest.mark.parametrize(
    ("other", "kind", "words"),
    [
        ("again", "right", "All 2 tensors are equal, bit by bit."),
        ("another bit", "wrong", "b has other numbers in the two."),
        ("turned", "wrong", "a is (2, 3) in one and (3, 2) in the other."),
        ("shorter", "wrong", "a is torch.float32 in one and torch.bfloat16 in the other."),
        ("fewer", "wrong", "1 tensors are in one folder alone, b among them."),
    ],
)
def test_what_differs_is_told(folders, other, kind, words):
    said = handover.same_weights(folders["first"], folders[other])
    assert words in repr(said) and said.kind == kind


def test_what_is_no_folder_is_told_in_words(tmp_path):
    assert "has no model.safetensors" in repr(handover.same_weights(tmp_path, tmp_path))
    assert "it takes a path, as a text or a pathlib.Path" in repr(handover.same_weights(7, tmp_path))
    assert handover.same_weights(..., ...).kind == "asked"


def test_a_judgement_is_read_and_its_absence_told(tmp_path, monkeypatch):
    monkeypatch.setattr(handover.records, "RECORDED", tmp_path)
    assert "No judgement of SmolLM2" in str(handover.judged())
    one = {"what": "speeches", "loss": 3.0, "tokens": 100, "bytes": 400, "each": [2.0, 4.0]}
    kept = {"machine": "NVIDIA H100", "before": {"losses": [one]}, "after": {"losses": [one | {"loss": 2.5}]}}
    (file := tmp_path / "h100" / handover.JUDGED).parent.mkdir(parents=True)
    file.write_text(json.dumps(kept))
    table = handover.judged()
    assert table.index.name == "recorded on NVIDIA H100" and table.loc["speeches", "change"].startswith("-0.500")
