"""A machine that is not here, from a few words: "8 × H100 80GB"."""

import re

from helpers.machine import data_sheets
from helpers.machine.hardware import GPU, Machine, require_whole
from helpers.show.names import named
from helpers.show.numbers import as_typed

COUNT = re.compile(r"(?:([0-9]+)\s*(?:[×x*]\s*|\s))?\s*([a-z].*)", re.I)
COUNT_BEHIND = re.compile(r"([a-z].*?)\s*[×x*]\s*([0-9]+)", re.I)  # "H100 × 8"
NODES = re.compile(r"([0-9]+)\s*nodes?\s*(?:of|with|[×x*])?\s*(.*)", re.I)
PLAIN = re.compile("NVIDIA|GEFORCE|TENSOR|CORE|GPUS?|DGX|HGX|SXM\\d?|HBM\\d?E?")  # words that change nothing
HOW = (
    'a number of GPUs and their name, "8 × H100 80GB"; several nodes: described("8 × H100 80GB", nodes=2, '
    "between_nodes_gbps=400)."
)
LONGEST = 100  # letters of a description
SIZE = re.compile(r"\b(\d+)\s*GB\b", re.I)
MOST = 100_000  # GPUs of the largest machine that somebody plans for
SIZES = {"GH200": (96, 144), "H100": (80, 64, 96)}  # GB, where one name has several


@named
def described(text: str, nodes: int = 1, between_nodes_gbps: float | None = None) -> Machine:
    """A machine to plan for: `described("8 × H100 80GB", nodes=4, between_nodes_gbps=400)`.

    Args:
        text: the GPUs of one node, by their number and the name in NVIDIA's data sheet; "2 nodes of 8 × H100", too.
        nodes: how many such nodes.
        between_nodes_gbps: what the network carries for each GPU, one way, in Gbit/s.

    Raises:
        ValueError: for an unknown GPU, numbers that no machine has, or words that contradict each other.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{as_typed(text)} describes no machine: write "8 × H100 80GB", say.')
    one_node = text.strip()[: LONGEST + 1]
    if said := NODES.fullmatch(one_node):
        if nodes not in (1, int(said.group(1))):
            raise ValueError(f"{as_typed(text)} with nodes={as_typed(nodes)}: one of the two is wrong. Say it once.")
        nodes, one_node = int(said.group(1)), said.group(2)
    behind, said = COUNT_BEHIND.fullmatch(one_node), COUNT.fullmatch(one_node)
    if not said or len(one_node) > LONGEST:
        raise ValueError(f"{as_typed(text)} describes no machine: {HOW}")
    count, name = (behind.group(2), behind.group(1)) if behind else said.groups()
    count, name = int(count or 1), name.upper()
    require_whole("GPUs a node", count)
    require_whole("nodes", nodes)
    if count * nodes > MOST:
        raise ValueError(
            f"{nodes} nodes of {count} GPUs are {nodes * count:,}: nobody has more than {MOST:,} to plan for."
        )
    if nodes > 1 and not between_nodes_gbps:
        raise ValueError(f"nodes={nodes} needs the network's rate for each GPU: between_nodes_gbps=400, say.")
    if nodes == 1 and between_nodes_gbps is not None:
        raise ValueError(
            f"between_nodes_gbps={as_typed(between_nodes_gbps)} with one node: there is nothing between. nodes=2?"
        )
    known = isinstance(between_nodes_gbps, int | float) and not isinstance(between_nodes_gbps, bool)
    if nodes > 1 and not (known and 0 < between_nodes_gbps <= 1e5):
        raise ValueError(f"between_nodes_gbps={as_typed(between_nodes_gbps)}: Gbit/s for each GPU, such as 400.")
    size = SIZE.search(name)
    sheet = data_sheets.of(name if data_sheets.find(name) else SIZE.sub("", name).strip())
    known = sheet.name.upper().replace("-", " ").split()
    words = re.sub(r"[^\w]", " ", name if sheet.name.endswith("GB") else SIZE.sub("", name, count=1)).split()
    if odd := [word for word in words if word not in known and not PLAIN.fullmatch(word)]:
        raise ValueError(f"{as_typed(text)}: {' '.join(odd)!r} says nothing here of an {sheet.name}. It takes {HOW}")
    gb = int(size.group(1)) if size else sheet.gigabytes
    if gb not in (sizes := SIZES.get(sheet.name, (sheet.gigabytes,))):
        raise ValueError(f"{sheet.name} with {gb} GB: its data sheet has {' or '.join(map(str, sizes))} GB.")
    short = sheet.name.removesuffix(f" {gb}GB")
    gpu = GPU(f"NVIDIA {short} {gb}GB", int(sheet.memory_bytes * gb / sheet.gigabytes), sheet.compute_capability)
    return Machine(
        gpus=(gpu,) * (count * nodes),
        cpu_count=16 * count,
        memory_bytes=256 * 2**30 * count,
        transformer_engine=True,
        nodes=nodes,
        between_nodes_gbps=between_nodes_gbps,
    )
