"""Two hosts on one machine: what they are, and what each says when the others would miss it.

Runs across them are page 11's: tests/notebooks/test_11_many_nodes.py.
"""

import os
import re
import subprocess
import sys
import time

import psutil
import pytest
from other_users import as_nobody, only_root
from two_nodes import needs_hosts

from helpers import cluster


def networks() -> set[str]:
    """Every network namespace that a process is in."""
    found = set()
    for process in psutil.process_iter():
        try:
            found.add(os.readlink(f"/proc/{process.pid}/ns/net"))
        except OSError:
            continue
    return found


@needs_hosts
def test_each_host_has_a_name_and_a_network_and_the_other_is_across_a_wire():
    with cluster.two_hosts() as hosts:
        assert [hosts.run(host, "hostname").strip() for host in (0, 1)] == ["node0", "node1"]
        assert "10.77.0.2" in hosts.run(1, "ip", "-brief", "address", "show", "eth0")
        assert hosts.run(1, "getent", "hosts", "node0").split() == ["10.77.0.1", "node0"]
        assert hosts.run(0, "pwd").strip() == os.getcwd()
        with pytest.raises(RuntimeError, match="node1: cat /nowhere failed: .*No such file"):
            hosts.run(1, "cat", "/nowhere")


@needs_hosts
def test_a_narrow_wire_takes_its_time_and_every_byte_is_counted():
    serve = "import socket; c = socket.create_server(('10.77.0.1', 5000)).accept()[0]\nwhile c.recv(1 << 20): pass"
    send = (
        "import socket, time; s = socket.create_connection(('10.77.0.1', 5000)); start = time.monotonic()\n"
        "s.sendall(b'x' * 2_500_000); s.shutdown(1); s.recv(1); print(time.monotonic() - start)"
    )
    with cluster.two_hosts() as hosts:
        hosts.narrow(100)
        with subprocess.Popen(hosts.on(0, sys.executable, "-c", serve)) as server:
            while "5000" not in hosts.run(0, "ss", "-tln") and server.poll() is None:
                time.sleep(0.05)
            before = hosts.sent_bytes()
            seconds = float(hosts.run(1, sys.executable, "-c", send))
        assert 2.5e6 < hosts.sent_bytes() - before < 2.8e6
        assert seconds > 0.9 * 2.5e6 * 8 / 100e6


@needs_hosts
def test_nothing_of_them_is_left_not_even_what_ran_there(tmp_path):
    mine = set()
    with pytest.raises(ZeroDivisionError), cluster.two_hosts() as hosts:
        mine |= {os.readlink(f"/proc/{holder.pid}/ns/net") for holder in hosts.holders}
        sleeper = subprocess.Popen(hosts.on(1, "sleep", "600"))
        while os.readlink(f"/proc/{sleeper.pid}/ns/net") not in mine:
            time.sleep(0.01)
        1 / 0  # noqa: B018
    assert sleeper.wait(10) == -9
    assert len(mine) == 2 and not mine & networks()  # other tests may have hosts of their own meanwhile


@needs_hosts
@only_root
def test_root_is_not_needed():
    def told():
        with cluster.two_hosts() as hosts:
            return hosts.run(1, "hostname")

    answer = as_nobody(told)
    assert answer.strip() == "node1" or answer.startswith("NoHosts: This machine makes no network namespaces")


def test_what_is_missing_is_named_with_its_package(monkeypatch, tmp_path):
    (tmp_path / "ip").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cluster.why_no_hosts() == (
        "tc, unshare, nsenter is not installed here: apt-get install iproute2 util-linux."
    )
    with pytest.raises(cluster.NoHosts, match="apt-get install"), cluster.two_hosts():
        pass


@needs_hosts
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "node1, the name of this host, stands for 127.0.1.1 here .*Fix: Nodes.interface='eth0'"),
        ({"GLOO_SOCKET_IFNAME": "ib0"}, "GLOO_SOCKET_IFNAME=ib0, and node1 has no such network; it has lo, eth0"),
        ({"PET_MASTER_ADDR": "nowhere.invalid"}, "node1 does not know the host 'nowhere.invalid'"),
        ({"PET_NODE_RANK": "2"}, "2 hosts are numbered from 0 to 1"),
    ],
)
def test_a_host_that_the_others_would_miss_says_so_before_torchrun_starts(variables, words):
    known = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "node0"} | variables
    with cluster.two_hosts(debian_names=True) as hosts:
        told = hosts.on(1, "env", *(f"{name}={value}" for name, value in known.items()))
        told += [sys.executable, "-m", "helpers.ranks.torchrun", "--max-restarts", "0", "never.py"]
        done = subprocess.run(told, capture_output=True, text=True, timeout=60)  # gloo finds out after 82 s
        assert done.returncode == 1 and re.search(words, done.stderr), done.stderr
