"""Paths as readers want them."""

from pathlib import Path

import pytest
from records import make_run

from helpers import recipes, weights
from helpers.machine import PROJECT, cache_root, given, given_folder, runs_root, short_path


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


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        (5, TypeError, "load(5): it takes a path"),
        (None, TypeError, "load(None): it takes a path"),
        (b"a", TypeError, "load(b'a'): it takes a path"),
        ("", ValueError, 'Write "." for the current folder'),
        ("a\0b", ValueError, "no path has a NUL character"),
        ("~nosuchuser/x", ValueError, "load('~nosuchuser/x'): the home that ~ stands for is not known"),
        ("here/" + "n" * 300, ValueError, "at most 255 bytes, and nnnnnnnnnnnnnnnnnnnn… has 300"),
        ("é" * 128, ValueError, "has 256"),
        ("n" * 5000, ValueError, "nnn …): a path has at most 4,095 bytes, and it has 5,000. Is it a text?"),
        (__file__, ValueError, "test_places.py is a file, and no folder can lie there. Name another folder."),
        (f"{__file__}/runs", ValueError, "test_places.py is a file"),
        ("~nobody/runs", ValueError, "~ stands for /nonexistent, and there is no such folder. Give the whole path."),
    ],
)
def test_what_can_be_no_path_is_told(path, kind, words):
    with pytest.raises(kind) as refused:
        given_folder(path, "load({})")
    assert words in str(refused.value)


def test_every_call_shows_the_path_that_it_was_given(tmp_path):
    run = make_run(tmp_path / "run")
    calls = {
        "recipe.with_(pretrained='a\\x00b')": lambda odd: recipes.gpt3_345m().with_(pretrained=odd),
        "weights.from_hugging_face('a\\x00b')": weights.from_hugging_face,
        "weights.to_hugging_face(folder='a\\x00b')": lambda odd: weights.to_hugging_face(run, odd),
    }
    for words, call in calls.items():
        with pytest.raises(ValueError) as refused:
            call("a\0b")
        assert str(refused.value).startswith(f"{words}: no path has a NUL"), refused.value


def test_a_path_is_taken_as_it_is_and_with_the_home_filled_in():
    assert given_folder("n" * 255, "load({})") == Path.cwd() / ("n" * 255)
    assert given_folder(Path(), "load({})") == Path.cwd()
    assert given("~/a", "load({})") == Path.home() / "a" and given("n" * 300, "load({})") == Path("n" * 300)


@pytest.mark.parametrize(("name", "root"), [("MEGATRON_TOUR_RUNS", runs_root), ("MEGATRON_TOUR_CACHE", cache_root)])
def test_a_place_in_the_environment_that_is_none_is_named_by_its_variable(name, root, monkeypatch):
    monkeypatch.setenv(name, "~nosuchuser/x")
    with pytest.raises(ValueError, match=rf"^{name}='~nosuchuser/x': the home"):
        root()
