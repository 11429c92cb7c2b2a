"""What a killed start leaves half-written in Megatron's cache of sample indices."""

import warnings

import numpy as np
import pytest

from helpers.corpus import samples
from helpers.ranks import index_cache

SPLIT = "8,1,1"


@pytest.mark.parametrize("damaged", ["description.txt", *index_cache.CACHED])
@pytest.mark.parametrize("how", ["missing", "empty", "half"])
def test_a_half_written_index_cache_is_built_again(small_corpus, tmp_path, damaged, how):
    whole = build(small_corpus, tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 12 and index_cache.mend(tmp_path) == []
    (path,) = tmp_path.glob(f"*-train-{damaged}")
    content = path.read_bytes()
    path.unlink() if how == "missing" else path.write_bytes(content[: 0 if how == "empty" else len(content) // 2])
    believed = how != "missing" and damaged != "description.txt"
    if believed:
        with pytest.raises((ValueError, EOFError, OSError)):
            build(small_corpus, tmp_path)
    removed = index_cache.mend(tmp_path)
    if believed:
        assert len(removed) == 4 and all("-train-" in name for name in removed)
    assert build(small_corpus, tmp_path) == whole
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files or not believed
    assert index_cache.mend(tmp_path / "not there") == []


@pytest.mark.parametrize("damaged", ["description.txt", *index_cache.CACHED_OF_A_BLEND])
def test_a_half_written_index_of_a_blend_is_built_again(small_blend, tmp_path, damaged):
    whole = build(small_blend, tmp_path)
    assert len(list(tmp_path.glob("*-BlendedDataset-*"))) == 9 and index_cache.mend(tmp_path) == []
    (path,) = tmp_path.glob(f"*-BlendedDataset-train-{damaged}")
    path.unlink() if damaged == "description.txt" else path.write_bytes(path.read_bytes()[:-1])
    assert all("-BlendedDataset-train-" in name for name in index_cache.mend(tmp_path))
    assert build(small_blend, tmp_path) == whole


def build(corpus, cache):
    """The first three samples through Megatron's builder, with its indices kept in `cache`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = samples.megatron_dataset(corpus, 64, split=SPLIT, part="train", count=3, index_cache=cache)
    return [dataset[i]["tokens"].tolist() for i in range(3)]


@pytest.mark.parametrize("array", [np.arange(100), np.ones((7, 2), dtype=np.int32), np.zeros((2, 3, 5), dtype="u1")])
def test_cut_off_anywhere_a_file_is_not_whole(tmp_path, array):
    path = tmp_path / "x.npy"
    np.save(path, array)
    content = path.read_bytes()
    assert index_cache._whole(path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert not index_cache._whole(path), length


def test_a_file_of_numpys_second_format_is_whole(tmp_path):
    """Megatron's indices are of the first; a header too long for it takes the second."""
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array(file, np.arange(5), version=(2, 0))
    assert index_cache._whole(tmp_path / "x.npy")
