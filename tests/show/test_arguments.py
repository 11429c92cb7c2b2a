"""What a public function is given, held against its annotations."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from helpers.show import arguments, bounds
from helpers.show.arguments import checked


class Dish:
    IN_WORDS = "a dish, such as soup()"


class Guest:
    IN_WORDS = "a guest (nobody() is one)"


@checked
def serve(dish: Dish, to: Guest | None = None, *, hot: bool = True, cups: int = 1, spoons: float = 1, **notes: str):
    return "served"


@checked
def lay(
    plates: Annotated[int, range(1, 9)],
    forks: Annotated[int, bounds.COUNT] | None = None,
    card: Annotated[str, bounds.Characters(5)] = "",
    minutes: Annotated[float, bounds.Above(60)] = 1,
):
    return "laid"


@checked
def count(dishes: Iterable[Dish | None], where: Path | str = "", how: Literal["fast"] = "fast"):
    return sum(1 for _ in dishes)


@checked
def listed(*dishes: Dish, names: Mapping[str, Dish] | None = None):
    return "listed"


@checked
def pair(one: Dish, other: Dish):
    return "paired"


@checked
def change(changes: Mapping[str, Any]):
    return "changed"


@checked
def seat(pairs: Mapping[str, tuple[Guest | None, Guest | None]], shares: Mapping[str, float | None] | None = None):
    return "seated"


class Rude:
    """A class of somebody's own."""

    def __repr__(self):
        raise RuntimeError("no")

    def __getattr__(self, name):
        raise RuntimeError("no")


def endless():
    while True:
        yield Dish()


def listen(hear: Callable[[str], None] | None):
    return hear


@pytest.mark.parametrize(
    "call",
    [
        lambda: serve(Dish()),
        lambda: serve(Dish(), Guest(), hot=np.True_, cups=np.int64(2), spoons=2, note="salt"),
        lambda: serve(Dish(), spoons=np.float32(0.5)),
        lambda: count([Dish(), None], where=Path()),
        lambda: count(dish for dish in [Dish()]),
        lambda: count({1: Dish()}.values()),
        lambda: listed(Dish(), names={"a": Dish()}),
        lambda: listed(),
        lambda: lay(8, 10**9, "roast", 60.0),
        lambda: lay(np.int64(8), minutes=np.float32(0.5)),
    ],
)
def test_what_fits_passes(call):
    assert call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: serve("soup"), "(dish='soup'): it takes a dish, such as soup(), not a str."),
        (lambda: serve(Dish), "(dish=Dish): it takes a dish, such as soup(), not the class itself."),
        (lambda: serve(serve), "(dish=serve): it takes a dish, such as soup(), not the function itself: call it, with"),
        (lambda: serve(Guest(), Dish()), "not a guest. What stands at to is one: they are swapped."),
        (lambda: serve(Dish(), "all"), "(to='all'): it takes a guest (nobody() is one), or None, not a str."),
        (lambda: serve(Dish(), cups=True), "(cups=True): it takes a whole number, not a bool."),
        (lambda: serve(Dish(), cups=2.5), "(cups=2.5): it takes a whole number, not a float."),
        (lambda: serve(Dish(), spoons="2"), "(spoons='2'): it takes a number; '2' is a text: write 2."),
        (lambda: serve(Dish(), spoons="two"), "(spoons='two'): it takes a number, not a str."),
        (lambda: serve(Dish(), hot="True"), "(hot='True'): it takes True or False; 'True' is a text: write True."),
        (lambda: serve(Dish(), hot=1), "(hot=1): it takes True or False, not an int."),
        (lambda: serve(Dish(), note=5), "(notes=5): it takes a text, not an int."),
        (lambda: serve(), "serve: missing a required argument: 'dish'. It takes (dish, to=None, "),
        (lambda: serve(Dish(), plates=2, hot=True, note=[]), "(notes=2): it takes a text, not an int."),
        (lambda: count(Dish()), "One alone is put in brackets: [it]."),
        (lambda: count("soup"), "it takes a list, each of it a dish, such as soup(), or None, not a str."),
        (lambda: count([Dish(), "x" * 99]), "; 'xxxxx"),
        (lambda: count([Dish(), 5]), "; 5 in it is an int."),
        (lambda: count([], where=5), "(where=5): it takes a path, or a text, not an int."),
        (lambda: count([], how="slow"), "(how='slow'): it takes 'fast', not a str."),
        (lambda: listed(Dish(), None), "(dishes=None): it takes a dish, such as soup(), not None."),
        (lambda: listed(names={5: Dish()}), "; 5 in it is an int."),
        (lambda: lay(9), "(plates=9): it takes a whole number from 1 to 8."),
        (lambda: lay("2"), "(plates='2'): it takes a whole number from 1 to 8; '2' is a text: write 2."),
        (lambda: lay("9"), "(plates='9'): it takes a whole number from 1 to 8, not a str."),
        (lambda: serve(dishes=Dish()), "serve: it takes no 'dishes'. Did you mean dish?"),
        (lambda: serve(Rude()), "(dish=Rude): it takes a dish, such as soup(), not a Rude."),
        (lambda: serve(Dish(), cups=[10**5000]), "(cups=list): it takes a whole number, not a list."),
        (lambda: serve(Dish(), spoons=float("nan")), "(spoons=nan): it takes a number."),
        (lambda: serve(Dish(), spoons=float("inf")), "(spoons=inf): it takes a number."),
        (lambda: count(one for one in [Dish(), 5]), "; 5 in it is an int."),
        (lambda: count(Rude() for _ in range(3)), "; Rude in it is a Rude."),
        (
            lambda: seat({"a": (None,)}),
            "each value a tuple of 2: a guest (nobody() is one), or None; tuple in it is a tup",
        ),
        (
            lambda: seat({}, shares=5),
            "it takes None, or a dict, each key a text, each value a number, or None, not an int",
        ),
        (lambda: pair(Dish(), "x"), "(other='x'): it takes a dish, such as soup(), not a str."),
        (lambda: change("x"), "(changes='x'): it takes a dict, each key a text, not a str."),
        (lambda: lay(1, 0), "(forks=0): it takes a whole number from 1 to 2,147,483,647, or None."),
        (lambda: lay(10**400), "(plates=about 10**400): it takes a whole number from 1 to 8."),
        (lambda: lay(1, card="x" * 10**6), "it takes a text of up to 5 characters."),
        (lambda: lay(1, card="a\ud800"), "in it is half a character, which cannot be written."),
        (lambda: serve(Dish(), note="\udfff"), "in it is half a character, which cannot be written."),
        (lambda: lay(1, minutes=float("nan")), "(minutes=nan): it takes a number above 0, up to 60."),
        (lambda: lay(1, minutes=-1), "(minutes=-1): it takes a number above 0, up to 60."),
        (lambda: lay(1, minutes=float("inf")), "(minutes=inf): it takes a number above 0, up to 60."),
    ],
)
def test_another_kind_is_told_in_a_sentence(call, words):
    with pytest.raises(TypeError) as refused:
        call()
    assert words in str(refused.value)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300
    assert refused.value._render_traceback_() == [f"TypeError: {refused.value}"], "no frames of ours in a cell"


def test_a_generator_that_never_ends_is_drawn_so_far():
    assert count(endless()) == arguments.LONGEST


def test_a_call_is_named_as_it_is_written():
    from helpers import plots, recipes
    from helpers.lessons import sums

    for call, name in (
        (plots.loss, "plots.loss"),
        (sums.mfu, "sums.mfu"),
        (recipes.preflight.check, "preflight.check"),
    ):
        with pytest.raises(TypeError, match=rf"^{name}\("):
            call(5, None) if call is recipes.preflight.check else call(5)


def test_a_number_of_numpys_is_handed_on_as_pythons_own():
    kinds = checked(lambda *values, **named: [type(value) for value in (*values, *named.values())])
    assert kinds(np.int64(2), np.float32(0.5), np.array([1]), few=np.int8(1)) == [int, float, np.ndarray, int]


def test_a_function_is_named_as_such():
    hearing = checked(listen)
    with pytest.raises(TypeError, match="it takes a function, or None, not a str"):
        hearing("x")


def test_another_answer_may_be_given():
    told = arguments.checked(serve.__wrapped__, str.upper)
    assert told(5).startswith("TEST_ARGUMENTS.SERVE(DISH=5)") and told(Dish()) == "served"
