"""The smallest Megatron Core program learns, and reads its checkpoint back; the shards it is made of fit together."""

import json
import re

import pytest
import real_runs


@pytest.mark.train
def test_first_loop_learns_saves_and_loads():
    printed = real_runs.run(2, "helpers/ranks/first_loop.py")
    losses = [float(loss) for loss in re.findall(r"^step +\d+   loss ([\d.]+)", printed, re.MULTILINE)]
    assert len(losses) == 20
    assert 4.5 < losses[0] < 5.2  # ln 128 = 4.85: it knows nothing
    assert losses[-1] < 0.5
    before, after = re.search(r"first batch ([\d.]+); saved, forgotten, loaded again ([\d.]+)", printed).groups()
    assert before == after
    assert float(before) < losses[-1] + 0.5
    assert "2 ranks, tensor-parallel; rank 0 holds 62,784 parameters" in printed
    assert "Warning" not in printed and "INFO" not in printed


@pytest.fixture(scope="module")
def looked_into():
    """Two models in one launch: SwiGLU under tensor parallelism, then the usual one with sequence parallelism too."""
    mock = ["--mock-data", "--tokenizer-type", "NullTokenizer", "--vocab-size", "255", "--padded-vocab-size", "256"]
    usual = [*real_runs.MODEL, *real_runs.TRAINING, *real_runs.DEVICE, *mock, "--tensor-model-parallel-size", "2"]
    printed = real_runs.run(2, "helpers/ranks/shards.py", *usual, "--swiglu", "--and", *usual, "--sequence-parallel")
    lines = [line for line in printed.splitlines() if line.startswith("SHARDS ")]
    return [json.loads(line.removeprefix("SHARDS ")) for line in lines]


@pytest.mark.train
def test_shards_of_tensor_parallelism(looked_into):
    record, _ = looked_into
    cells: dict[str, list] = {}
    for shard in record["shards"]:
        area = 0
        for piece in shard["pieces"]:
            for start, length, full in zip(piece["offset"], piece["shape"], shard["full_shape"], strict=True):
                assert start >= 0 and start + length <= full
            rows, columns = (*piece["shape"], 1)[:2]
            area += rows * columns
            cells.setdefault(shard["name"], []).append((shard["rank"], tuple(piece["offset"]), rows * columns))
        local_rows, local_columns = (*shard["local_shape"], 1)[:2]
        assert area == local_rows * local_columns

    by_name = {shard["name"]: shard for shard in record["shards"] if shard["rank"] == 1}
    layer = "decoder.layers.0."
    split = {name.removeprefix(layer): shard["partition_dim"] for name, shard in by_name.items() if layer in name}
    assert split["self_attention.linear_qkv.weight"] == split["mlp.linear_fc1.weight"] == 0
    assert split["self_attention.linear_proj.weight"] == split["mlp.linear_fc2.weight"] == 1
    assert split["input_layernorm.weight"] is None
    assert by_name["embedding.word_embeddings.weight"]["pieces"] == [{"offset": [128, 0], "shape": [128, 64]}]
    assert by_name[layer + "mlp.linear_fc1.weight"]["pieces"] == [  # the second half of gate, and of up
        {"offset": [64, 0], "shape": [64, 64]},
        {"offset": [192, 0], "shape": [64, 64]},
    ]
    for name, shard in by_name.items():  # both ranks together hold every cell, once if it is split
        rows, columns = (*shard["full_shape"], 1)[:2]
        once = len({offset for _, offset, _ in cells[name]}) == len(cells[name])
        assert once == (shard["partition_dim"] is not None)
        assert sum(area for _, _, area in cells[name]) == rows * columns * (1 if once else 2)

    said = [(heard["direction"], heard["module"], heard["collective"]) for heard in record["collectives"]]
    assert said == [
        ("forward", "self_attention.linear_proj", "all-reduce"),
        ("forward", "mlp.linear_fc2", "all-reduce"),
        ("backward", "mlp.linear_fc1", "all-reduce"),
        ("backward", "self_attention.linear_qkv", "all-reduce"),
    ]
    assert {heard["bytes"] for heard in record["collectives"]} == {64 * 2 * 64 * 4}  # sequence, batch, hidden, fp32
    assert all(heard["ranks"] == [0, 1] for heard in record["collectives"])


@pytest.mark.train
def test_sequence_parallelism_gathers_and_scatters(looked_into):
    _, record = looked_into
    heard = record["collectives"]
    forward = [(one["module"], one["collective"]) for one in heard if one["direction"] == "forward"]
    assert forward == [
        ("self_attention.linear_qkv", "all-gather"),
        ("self_attention.linear_proj", "reduce-scatter"),
        ("mlp.linear_fc1", "all-gather"),
        ("mlp.linear_fc2", "reduce-scatter"),
    ]
    backward = [one["collective"] for one in heard if one["direction"] == "backward"]
    assert sorted(backward) == ["all-gather"] * 4 + ["reduce-scatter"] * 2  # two gather the saved inputs again
