"""Names that are nearly right: the one that was meant is told."""

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, replace

import pytest

from helpers.show import names


@names.told
@dataclass(frozen=True)
class Oven:
    degrees: int = 200
    fan: bool = False

    @property
    def broken(self):
        return self.fan.missing


@names.told
@dataclass(frozen=True)
class Kitchen:
    oven: Oven = Oven()
    cook_count: int = 1

    def with_(self, **changes):
        return replace(self, **changes)


@names.named
def bake(minutes, *, dough="bread"):
    return "baked"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bake(3, doug=1), "test_names.bake: it takes no 'doug'. Did you mean dough?"),
        (lambda: bake(minute=1), "it takes no 'minute'. Did you mean minutes?"),
        (lambda: bake(3, butter=1), "an unexpected keyword argument 'butter'. It takes (minutes, *, dough='bread')."),
        (lambda: bake(), "missing a required argument: 'minutes'. It takes (minutes, *, dough='bread')."),
        (lambda: Oven(degree=3), "Oven: it takes no 'degree'. Did you mean degrees?"),
        (lambda: Oven(heat=3), "Oven: got an unexpected keyword argument 'heat'. It takes (degrees=200, fan=False)."),
        (lambda: Oven(1, True, 3), "Oven: too many positional arguments. It takes (degrees=200, fan=False)."),
        (lambda: Oven().degree, "Oven has no 'degree'. Did you mean degrees?"),
        (lambda: Kitchen().degrees, "Kitchen has no 'degrees'. Did you mean oven.degrees?"),
        (lambda: Kitchen().degre, "Kitchen has no 'degre'. Did you mean oven.degrees?"),
        (lambda: Kitchen().cook, "Kitchen has no 'cook'. Did you mean cook_count?"),
        (lambda: Kitchen().xyz, "Kitchen has no 'xyz'. It has cook_count, oven, with_."),
        (lambda: setattr(Kitchen(), "oven", 3), "oven: Kitchen stays as it was made. with_(oven=…) makes another one."),
        (lambda: setattr(Oven(), "fan", 3), "fan: Oven stays as it was made. dataclasses.replace(it, fan=…)"),
        (lambda: Oven(True).broken, "'bool' object has no attribute 'missing'"),
    ],
)
def test_the_name_that_was_meant_is_told(call, words):
    with pytest.raises((TypeError, AttributeError, FrozenInstanceError)) as refused:
        call()
    assert words in str(refused.value)


def test_a_value_works_as_before():
    kitchen = Kitchen(Oven(180), cook_count=2)
    assert pickle.loads(pickle.dumps(kitchen)) == copy.deepcopy(kitchen) == replace(kitchen) == kitchen
    assert kitchen.with_(cook_count=3).cook_count == 3 and not hasattr(kitchen, "nothing")
    assert bake(3, dough="rye") == "baked"


def test_what_others_call_it_counts_too():
    assert names.nearest("tp", ["tensor_parallel"], {"tp": "tensor_parallel", "lr": "rate"}) == "tensor_parallel"
    assert names.nearest("--TP", ["tensor_parallel"], {"tp": "tensor_parallel"}) == "tensor_parallel"
    assert names.nearest("lr", ["tensor_parallel"], {"lr": "rate"}) is None, "no name that is not there"
