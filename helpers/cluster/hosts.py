"""Two hosts on one machine: network, host name and /etc/hosts of their own, and a wire between them.

Linux calls these namespaces; containers are made of them. What runs on either host sees one disk and the same cores,
and reaches the other through the wire alone, whose bytes are counted and whose rate can be set.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers.recipes import Nodes, Recipe

NAMES, ADDRESSES, INTERFACE = ("node0", "node1"), ("10.77.0.1", "10.77.0.2"), "eth0"
OWN_NAMESPACES = ("--net", "--uts", "--mount", "--propagation", "private")
AS_ROOT_THERE = ("--user", "--map-root-user")  # who is not root is, in a user namespace, over what is made there
PROGRAMS = {"ip": "iproute2", "tc": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}
SCRIPT = "hosts.sh"
LAST_WORDS_SECONDS = 15  # what the other host gets to see for itself that one has failed
START = """\
#!/usr/bin/env bash
# Starts command.sh on node0 and on node1, as you would type it on two hosts, and waits for both.
trap 'kill $(jobs -pr) 2> /dev/null' TERM INT
{starts}
wait -n
code=$?
if [ $code = 0 ]; then wait -n; exit; fi
# One host has failed. Its ranks are missed on the other, which then fails, too, or is ended.
for _ in {{1..{seconds}0}}; do [ -z "$(jobs -pr)" ] && break; sleep 0.1; done
kill $(jobs -pr) 2> /dev/null
wait
exit $code
"""
HOLD = "mount --bind {hosts} /etc/hosts && hostname {name} && ip link set lo up && echo ready && exec cat"


class NoHosts(RuntimeError):
    """This machine does not let two hosts be made on it; the message says what is missing."""


@dataclass
class Hosts:
    """Two hosts that stand while `two_hosts()` lasts, numbered 0 and 1."""

    holders: list[subprocess.Popen] = field(default_factory=list)
    interface: str | None = INTERFACE  # what ranks are told to talk through; None: nothing

    def nodes_of(self, recipe: Recipe) -> Nodes:
        """The hosts as torchrun is told of them: half of the recipe's ranks on each."""
        each = -(-recipe.layout.world_size // len(NAMES))
        return Nodes(len(NAMES), each, address=ADDRESSES[0], interface=self.interface)

    def script(self, directory: Path) -> str:
        """Write the file that starts a run's `command.sh` on both hosts; its name."""
        starts = [
            f"PET_NODE_RANK={host} PET_LOG_DIR=$PET_LOG_DIR/node{host} "
            f"{shlex.join(self.on(host, 'bash', str(directory / 'command.sh')))} &"
            for host in range(len(NAMES))
        ]
        (directory / SCRIPT).write_text(START.format(starts="\n".join(starts), seconds=LAST_WORDS_SECONDS))
        return SCRIPT

    def on(self, host: int, *command: str) -> list[str]:
        """The command that runs `command` on a host, in the folder that this process is in."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        enter = ["nsenter", "--target", str(self.holders[host].pid), *user, "--net", "--uts", "--mount"]
        return [*enter, "env", "--chdir", os.getcwd(), *command]

    def run(self, host: int, *command: str) -> str:
        """Run a command on a host and return what it printed.

        Raises:
            RuntimeError: it failed; the message holds its words.
        """
        done = subprocess.run(self.on(host, *command), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{NAMES[host]}: {' '.join(command)} failed: {done.stderr.strip()}")
        return done.stdout

    def narrow(self, megabits: float | None) -> None:
        """Let the wire carry so many Mbit/s each way, by a token bucket (tc-tbf); None: as fast as this machine."""
        for host in range(len(NAMES)):
            if megabits is None:
                with contextlib.suppress(RuntimeError):  # it may be free already
                    self.run(host, "tc", "qdisc", "del", "dev", INTERFACE, "root")
                continue
            bucket = max(32_000, int(megabits * 1e6 / 8 / 250))  # bytes of four milliseconds: timers are coarse
            rate = ["tbf", "rate", f"{megabits:g}mbit", "burst", str(bucket), "latency", "2s"]
            self.run(host, "tc", "qdisc", "replace", "dev", INTERFACE, "root", *rate)

    def sent_bytes(self) -> int:
        """Bytes that both hosts have put on the wire so far, headers included (Linux counts at the interface)."""
        total = 0
        for holder in self.holders:
            for line in Path(f"/proc/{holder.pid}/net/dev").read_text().splitlines():
                name, _, counters = line.partition(":")
                total += int(counters.split()[8]) if name.strip() == INTERFACE else 0
        return total

    def close(self) -> None:
        """End what still runs on the hosts; with its last process a namespace is gone, and the wire with it."""
        mine = {_network(holder.pid) for holder in self.holders} - {_network(os.getpid()), None}
        for path in Path("/proc").glob("[0-9]*"):
            if _network(int(path.name)) in mine:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(path.name), signal.SIGKILL)
        for holder in self.holders:
            holder.kill()
            holder.communicate()


@contextlib.contextmanager
def two_hosts(debian_names: bool = False) -> Iterator[Hosts]:
    """Two hosts, node0 and node1, until the block ends; then nothing of them is left.

    Root is not needed where the kernel gives user namespaces to everybody. `debian_names`: each host's own name stands
    for 127.0.1.1, as Debian's and Ubuntu's installers write it into /etc/hosts.

    Raises:
        NoHosts: something is missing; the message says what.
    """
    if why := why_none():
        raise NoHosts(why)
    hosts = Hosts()
    with tempfile.TemporaryDirectory(prefix="two-hosts-") as folder:
        try:
            for number, name in enumerate(NAMES):
                file = Path(folder) / f"hosts{number}"
                file.write_text(_etc_hosts(number, debian_names))
                hosts.holders.append(_holder(hosts, HOLD.format(hosts=file, name=name)))
            wire = ["ip", "link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE]
            hosts.run(0, *wire, "netns", str(hosts.holders[1].pid))
            for number, address in enumerate(ADDRESSES):
                hosts.run(number, "ip", "address", "add", f"{address}/24", "dev", INTERFACE)
                hosts.run(number, "ip", "link", "set", INTERFACE, "up")
            yield hosts
        finally:
            hosts.close()


def why_none() -> str | None:
    """What keeps two hosts from being made here, in words; None where nothing does."""
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        packages = " ".join(sorted({PROGRAMS[name] for name in absent}))
        return f"{', '.join(absent)} is not installed here: apt-get install {packages}."
    who = () if os.geteuid() == 0 else AS_ROOT_THERE
    probe = "mount --bind /etc/hosts /etc/hosts && ip link add probe0 type veth peer name probe1"
    done = subprocess.run(["unshare", *who, *OWN_NAMESPACES, "sh", "-c", probe], capture_output=True, text=True)
    if done.returncode:
        rights = (
            "root" if who else "the capabilities SYS_ADMIN and NET_ADMIN, which a container lacks unless it is given"
        )
        return f"This machine makes no network namespaces for this user ({done.stderr.strip()}): it takes {rights}."
    return None


def _etc_hosts(host: int, debian_names: bool) -> str:
    lines = ["127.0.0.1 localhost"]
    for number, (name, address) in enumerate(zip(NAMES, ADDRESSES, strict=True)):
        lines.append(f"{'127.0.1.1' if debian_names and number == host else address} {name}")
    return "\n".join(lines) + "\n"


def _holder(hosts: Hosts, program: str) -> subprocess.Popen:
    """A process in namespaces of its own, which keeps them; it ends with this one, by the end of its input."""
    start: Sequence[str] = ["unshare", *OWN_NAMESPACES]
    if os.geteuid() != 0 and hosts.holders:  # the second host's user is the first one's: only so can a wire join them
        start = ["nsenter", "--target", str(hosts.holders[0].pid), "--user", "--preserve-credentials", *start]
    elif os.geteuid() != 0:
        start = ["unshare", *AS_ROOT_THERE, *OWN_NAMESPACES]
    holder = subprocess.Popen(
        [*start, "sh", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if holder.stdout.readline() != "ready\n":
        raise NoHosts(f"A host could not be made here: {holder.communicate()[1].strip()}")
    return holder


def _network(pid: int) -> str | None:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/net")
    return None
