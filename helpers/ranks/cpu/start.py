"""A short start: what Megatron and torch import and nobody uses on a CPU is left out. No number depends on it."""

import importlib
import sys
import types


def leave_out_what_nobody_uses() -> None:
    """Megatron imports wandb whether it logs there or not, torch's optimizers import torch's compiler: three seconds.

    Call it before Megatron is imported.
    """
    if not any(word.startswith("--wandb") for word in sys.argv):
        sys.modules.setdefault("wandb", None)
    sys.modules.setdefault("torch._dynamo", Compiler("torch._dynamo"))


def as_written(function=None, *args, **options):
    """In the place of torch.compile and of what keeps from compiling: the function itself."""
    return function if function is not None else (lambda function: function)


class Compiler(types.ModuleType):
    """Stands in for `torch._dynamo` where torch only tells it what not to compile; who asks for more gets the real one.

    That is `_disable_dynamo` in torch/_compile.py, `_use_grad` in torch/optim/optimizer.py and `init_process_group`.
    """

    __file__ = None
    disable = staticmethod(as_written)
    graph_break = staticmethod(lambda *args, **options: None)
    trace_rules = types.SimpleNamespace(clear_lru_cache=lambda: None)

    def __getattr__(self, name):
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
