"""A short start: what Megatron and torch import and nobody uses on a CPU is left out. No number depends on it."""

import importlib
import sys
import types
from importlib.util import find_spec


def before_torch() -> None:
    """Leave out what torch knows of tensors without data (meta), and how DTensor is cut: with sympy, two seconds.

    FSDP needs both, a model on the meta device the first. Call it before torch is imported; later it does nothing.
    """
    if "torch" in sys.modules or any("fsdp" in word or "meta-device" in word for word in sys.argv):
        return
    _put_off("torch._meta_registrations")
    _put_off("torch.distributed.tensor._ops").__path__ = [
        f"{folder}/distributed/tensor/_ops" for folder in find_spec("torch").submodule_search_locations
    ]


def before_megatron() -> None:
    """Megatron imports wandb whether it logs there or not, torch's optimizers torch's compiler: three seconds."""
    if not any(word.startswith("--wandb") for word in sys.argv):
        sys.modules.setdefault("wandb", None)
    sys.modules.setdefault("torch._dynamo", Compiler("torch._dynamo"))


def as_written(function=None, *args, **options):
    """In the place of torch.compile and of what keeps from compiling: the function itself."""
    return function if function is not None else (lambda function: function)


class PutOff(types.ModuleType):
    """Stands in for a module that is imported and not used; who asks it for anything gets the real one."""

    __file__ = None

    def __getattr__(self, name):
        return getattr(_real(self.__name__), name)


def _put_off(name: str) -> PutOff:
    return sys.modules.setdefault(name, PutOff(name))


def _real(name: str) -> types.ModuleType:
    if isinstance(sys.modules.get(name), PutOff):
        del sys.modules[name]
    return importlib.import_module(name)


class Compiler(PutOff):
    """`torch._dynamo` where torch only tells it what not to compile.

    That is `_disable_dynamo` in torch/_compile.py, `_use_grad` in torch/optim/optimizer.py and `init_process_group`.
    """

    disable = staticmethod(as_written)
    graph_break = staticmethod(lambda *args, **options: None)
    trace_rules = types.SimpleNamespace(clear_lru_cache=lambda: None)

    def __getattr__(self, name):
        _real("torch._meta_registrations")  # the compiler needs it whole
        return super().__getattr__(name)
