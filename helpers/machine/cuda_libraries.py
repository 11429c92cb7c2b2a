"""Which CUDA libraries a process loads: those that came with PyTorch as wheels, before any of the system's."""

import importlib.util
import os
from pathlib import Path


def cudnn_wheel() -> str | None:
    """The folder of the cuDNN that came with PyTorch by pip; None where PyTorch brings its own way (a container)."""
    if importlib.util.find_spec("nvidia") is None or (found := importlib.util.find_spec("nvidia.cudnn")) is None:
        return None
    return next(iter(found.submodule_search_locations or []), None)


def transformer_engine_installed() -> bool:
    """Whether Transformer Engine is here with its PyTorch extension, in any of the places where its builds put it."""
    if (found := importlib.util.find_spec("transformer_engine")) is None:
        return False
    folders = [Path(folder) for folder in found.submodule_search_locations or []]
    places = [place for folder in folders for place in (folder.parent, folder, folder / "wheel_lib")]
    return any(next(place.glob("transformer_engine_torch*.so"), None) for place in places)


def variables() -> dict[str, tuple[str, str]]:
    """Environment variables for a process that loads Transformer Engine: name → (value, why); {} in a container.

    Transformer Engine looks for a system cuDNN first (`common/__init__.py:_load_cudnn`), and one that is not PyTorch's
    costs fused attention or the import.
    """
    if (cudnn := cudnn_wheel()) is None:
        return {}
    folders = [Path(cudnn).parent / name / "lib" for name in ("cudnn", "cu13", "nccl")]
    path = ":".join(str(folder) for folder in folders if folder.is_dir())
    return {
        "CUDNN_HOME": (cudnn, "Transformer Engine would load the system's cuDNN instead of PyTorch's"),
        "LD_LIBRARY_PATH": (path, "and the system's other CUDA libraries with it"),
    }


def merged(wanted: dict[str, tuple[str, str]]) -> dict[str, str]:
    """This process's environment with `wanted` in it: what the learner has set stays, on a path after ours."""
    environment = dict(os.environ)
    for name, (value, _) in wanted.items():
        kept = environment.get(name)
        environment[name] = ":".join(filter(None, (value, kept))) if name.endswith("_PATH") else kept or value
    return environment
