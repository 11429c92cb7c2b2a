"""Tokens are drawn as they are asked for."""

import pytest
import torch

from helpers.ranks.sampling import sample

LOGITS = torch.log(torch.tensor([[0.1, 0.4, 0.2, 0.3]])).expand(4000, -1)


@pytest.mark.parametrize(
    ("asked", "shares"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        ({"temperature": None}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.69}, [0, 4 / 7, 0, 3 / 7]),  # the two have 0.7 together
        ({"top_p": 0.75}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 0.01}, [0, 1, 0, 0]),
        ({"top_k": 3, "top_p": 0.5}, [0, 4 / 7, 0, 3 / 7]),
    ],
)
def test_a_token_is_drawn_as_asked(asked, shares):
    asked = {"temperature": 1.0, "top_k": None, "top_p": None} | asked
    drawn = sample(LOGITS, *asked.values(), torch.Generator().manual_seed(0))
    found = torch.bincount(drawn, minlength=4) / len(drawn)
    assert found.tolist() == pytest.approx(shares, abs=0.03)
