"""Whether the ranks of other hosts will find this one: asked on each host before torchrun starts, in milliseconds.

Reads the variables that torchrun, gloo and NCCL read. Python's own library alone.
"""

import contextlib
import ipaddress
import os
import socket
import sys
from collections.abc import Mapping, Sequence

ONE_HOST = "--nproc-per-node"  # on torchrun's line; with several hosts PET_NPROC_PER_NODE says it
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
SECONDS_LOST = 82  # gloo's own wait in that trap, then "connectFullMesh failed"


def leave_if_lost(line: Sequence[str]) -> None:
    """End this process with a sentence where torchrun is started for one of several hosts, which the others miss."""
    if ONE_HOST not in line and (lost := why_lost(os.environ)):
        sys.exit(lost)


def why_lost(environment: Mapping[str, str]) -> str | None:
    """What would keep the hosts apart, in words with the fix; None where nothing is known to."""
    nodes, own = int(environment.get("PET_NNODES", 1)), environment.get("PET_NODE_RANK", "0")
    if not own.isdigit() or int(own) >= nodes:
        return f"PET_NODE_RANK={own}: {nodes} hosts are numbered from 0 to {nodes - 1}. Fix: each a number of its own."
    there = [name for _, name in socket.if_nameindex()]
    for variable in INTERFACES:
        for name in filter(None, environment.get(variable, "").split(",")):
            if name[0] not in "^=" and not any(one.startswith(name) for one in there):
                return (
                    f"{variable}={name}, and {socket.gethostname()} has no such network; it has {', '.join(there)}. "
                    f"Fix: Nodes(interface=…) with one of these, or export {variable}=<its name here> on this host."
                )
    master = environment.get("PET_MASTER_ADDR", "")
    try:
        socket.getaddrinfo(master or "localhost", None)
    except (OSError, UnicodeError) as refusal:
        return (
            f"{socket.gethostname()} does not know the host {master!r}, where all meet ({refusal}). "
            "Fix: its IP address instead of its name: Nodes(address=…) or PET_MASTER_ADDR."
        )
    if own == "0" and (taken := why_taken(environment.get("PET_MASTER_PORT", ""))):
        return taken
    on_one_machine = master in ("", "localhost", "::1") or master.startswith("127.")
    return None if nodes == 1 or on_one_machine or environment.get("GLOO_SOCKET_IFNAME") else why_loopback()


def why_taken(port: str) -> str | None:
    """Whether another program has the port of host 0 on which all would meet."""
    if not port.isdigit():
        return None
    try:
        with socket.create_server(("", int(port))):
            return None
    except (OSError, OverflowError) as refusal:
        return (
            f"Port {port} of {socket.gethostname()}, where all hosts would meet, cannot be had ({refusal}). "
            "Fix: another one on every host, Nodes(port=…) or PET_MASTER_PORT, or end what holds it (`ss -tlnp`)."
        )


def why_loopback() -> str | None:
    """Whether gloo, told no interface, would listen on loopback: it takes the address that the host's own name stands
    for, and loopback where that is none of its own (torch/csrc/distributed/c10d/ProcessGroupGloo.cpp)."""
    name = socket.gethostname()
    try:
        addresses = [found[4][0] for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError:
        addresses = []
    own = next(filter(_is_own, addresses), None)
    if own is not None and not ipaddress.ip_address(own).is_loopback:
        return None
    stands = f"stands for {own} here (/etc/hosts)" if own else "stands for no address of its own"
    network = _routed()
    return (
        f"{name}, the name of this host, {stands}: gloo would tell the other hosts to call it on loopback, where they "
        f"would only find themselves, and give up after {SECONDS_LOST} s with `connectFullMesh failed`. "
        f"Fix: Nodes(interface={network!r}), or GLOO_SOCKET_IFNAME={network} on every host."
    )


def _routed() -> str:
    """A network that this host has a way through, as a proposal."""
    with contextlib.suppress(OSError), open("/proc/net/route") as routes:
        found = [line.split()[0] for line in list(routes)[1:]]  # that of everything else comes first
        if found:
            return found[0]
    return "eth0"


def _is_own(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
            return True
    except OSError:
        return False
