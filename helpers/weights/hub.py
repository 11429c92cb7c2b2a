"""A model from the Hugging Face hub, given up on when it does not answer within ten seconds."""

import contextlib
from pathlib import Path

from helpers.machine.hub import HUB_SECONDS, answers
from helpers.machine.variables import hub_is_off
from helpers.weights.error import WeightsError


def fetch(name: str) -> Path:
    """The folder of `owner/name` in the hub's own cache; what was fetched before is not fetched again.

    Raises:
        WeightsError: the hub is silent or off and the model is not here, there is none of that name, or it is gated.
    """
    why = "HF_HUB_OFFLINE is set, so the hub was not asked." if hub_is_off() else None
    told = {} if why else _ask(name)
    if told.get("answered") and "error" in told:
        raise WeightsError(f"{name} from the Hugging Face hub: {told['error']}")
    if "folder" not in told:
        why = why or told.get("error") or f"The Hugging Face hub did not answer within {HUB_SECONDS:.0f} s."
        told = _ask(name, offline=True)
    if "folder" not in told:
        raise WeightsError(
            f"{name} is no folder here, and the hub cannot give it: {why} Give the path of a Hugging Face folder."
        )
    return Path(told["folder"])


def _ask(name: str, offline: bool = False) -> dict:
    """What `hub_process.py` says, all of it in one."""
    told: dict = {}
    program = Path(__file__).with_name("hub_process.py")
    with contextlib.closing(answers(program, name, seconds=HUB_SECONDS, offline=offline)) as asked:
        for one in asked:
            told |= one
    return told
