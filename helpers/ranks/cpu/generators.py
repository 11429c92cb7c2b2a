"""Random numbers of the device: drawn from the CPU's own generator, and kept apart from what the host draws.

A GPU has a generator of its own, and its ranks count on being at the same place in it: hidden dropout must drop the
same on all tensor-parallel ranks. Here there is one generator, so what only some ranks draw must not move it.
"""

import functools

import torch
from torch.utils.data import dataloader

CpuGenerator = torch.Generator


class _AnyGenerator(type):
    """So that `isinstance(torch.default_generator, torch.Generator)` stays true."""

    def __instancecheck__(cls, thing) -> bool:
        return isinstance(thing, CpuGenerator)


class Generator(CpuGenerator, metaclass=_AnyGenerator):
    """In the place of `torch.Generator`: whatever device it is made for, it draws on the CPU."""

    def __new__(cls, device="cpu"):
        return CpuGenerator.__new__(cls, "cpu")


def share() -> None:
    """Let `torch.cuda`'s random functions mean the CPU's generator: dropout and the like draw from it."""
    generator = torch.default_generator
    torch.Generator = Generator
    torch.cuda.default_generators = (generator,)
    for module in (torch.cuda, torch.cuda.random):
        module.get_rng_state = lambda device=None: generator.get_state()
        module.set_rng_state = lambda state, device=None: generator.set_state(state) and None
        module.manual_seed = module.manual_seed_all = lambda seed: generator.manual_seed(int(seed)) and None
    _let_data_loaders_draw_aside()


def _let_data_loaders_draw_aside() -> None:
    """Each iterator of a data loader draws a seed for its workers, on the ranks that read data and on no others."""
    build = dataloader._BaseDataLoaderIter.__init__

    @functools.wraps(build)
    def build_aside(self, *args, **options):
        state = torch.get_rng_state()
        build(self, *args, **options)
        torch.set_rng_state(state)

    dataloader._BaseDataLoaderIter.__init__ = build_aside
