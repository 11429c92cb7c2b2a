"""Paths as readers want them."""

from pathlib import Path

import pytest

from helpers.machine import PROJECT, short_path


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (PROJECT / "runs" / "gpt3_345m" / "20261126-040506", "runs/gpt3_345m/20261126-040506"),
        (str(PROJECT / "runs"), "runs"),
        (Path.home() / "a" / "b", "~/a/b"),
        ("/elsewhere/b", "/elsewhere/b"),
    ],
)
def test_a_path_is_short(path, words):
    assert short_path(path) == words
