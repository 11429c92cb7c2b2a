"""A loud column: what the Frobenius norm of the whole tensor hides."""

import torch

from helpers.formats import outlier_errors
from helpers.formats.number_formats import E4M3, CurrentScaling, cast, relative_error


def normal_numbers() -> torch.Tensor:
    return torch.randn(256, 256, generator=torch.Generator().manual_seed(0))


def test_the_whole_tensors_error_hides_that_of_the_quiet_columns():
    table = outlier_errors(normal_numbers()).loc[1e5]
    assert table["whole"].between(0.02, 0.035).all(), "the loud column decides the norm"
    assert table.loc["tensorwise", "quiet columns"] > 0.3
    assert table["quiet columns"].is_monotonic_decreasing and table["become zero"].is_monotonic_decreasing


def test_without_an_outlier_all_scalings_are_alike():
    table = outlier_errors(normal_numbers()).loc[1.0]
    assert table["quiet columns"].max() < 1.05 * table["quiet columns"].min()
    assert (table["become zero"] < 1e-3).all()


def test_the_chosen_column_is_the_loud_one():
    tensor = normal_numbers()
    loud = tensor.clone()
    loud[:, 7] *= 1e4
    quiet = torch.arange(256) != 7
    by_hand = relative_error(cast(loud, E4M3, CurrentScaling()).values[:, quiet], loud[:, quiet])
    assert outlier_errors(tensor, column=7).loc[(1e4, "tensorwise"), "quiet columns"] == by_hand
