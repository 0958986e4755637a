"""A pair of nodes with a network of their own: each in a network namespace, joined by one link.

    class MyTest(network_support.NetworkTest):
        def test_it(self):
            a, b = self.start_pair()
            self.link.cut()          # nothing arrives, and nobody is told
            self.link.heal()

The link is two TUN devices and a thread that carries packets between them, so that it can lose, delay
and count them in each direction on any kernel. Namespaces and devices have no names to clean up: they
are gone with the processes that hold them, also when the test is killed.
"""

import fcntl
import functools
import heapq
import os
import select
import shutil
import struct
import subprocess
import threading
import time
import unittest

import harness
from harness import MIB
from load_support import Fio

_TUNSETIFF = 0x400454ca
_TUNSETCARRIER = 0x400454e2
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
MTU = 9000
WRITES_PER_SECOND = 500  # of the ledger
QUEUE_BYTES = 16 * MIB  # what is on its way at most; more is dropped, as a switch does


class Link:
    """Carries packets between two TUN devices; direction 0 is from node-a to node-b."""

    A_TO_B, B_TO_A = 0, 1

    def __init__(self):
        self.files, self.names = [], []
        for _ in range(2):
            file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            self.files.append(file)
            made = fcntl.ioctl(file, _TUNSETIFF,
                               struct.pack("16sH22x", b"tandem%d", _IFF_TUN | _IFF_NO_PI))
            self.names.append(made[:16].rstrip(b"\0").decode())
        self.lost = [False, False]
        self.bytes = [0, 0]  # that arrived
        self.seconds, self.jitter = 0.0, 0.0
        self.waiting = []  # (when, number, direction, packet)
        self.waiting_bytes = [0, 0]
        self.last = [0.0, 0.0]
        self.random = harness.chance("jitter of the link")
        self.wake, self.waker = os.pipe()
        self.thread = threading.Thread(target=self._carry, daemon=True)
        self.thread.start()

    def cut(self, *directions):
        """Loses every packet, in these directions or in both; also those on their way."""
        for direction in directions or (0, 1):
            self.lost[direction] = True

    def heal(self):
        self.lost = [False, False]

    def delay(self, seconds, jitter=0.0):
        """Each packet takes so long, give or take; they stay in order."""
        self.seconds, self.jitter = seconds, jitter

    def plug(self, into):
        """Pulls the cable out of both nodes, or puts it in: they see the carrier go and come."""
        for file in self.files:
            fcntl.ioctl(file, _TUNSETCARRIER, struct.pack("i", into))

    def close(self):
        os.write(self.waker, b"x")
        self.thread.join(harness.PATIENCE)
        for file in (*self.files, self.wake, self.waker):
            os.close(file)

    def _carry(self):
        number = 0
        while True:
            timeout = None
            if self.waiting:
                timeout = max(0, self.waiting[0][0] - time.monotonic())
            ready, _, _ = select.select([*self.files, self.wake], [], [], timeout)
            if self.wake in ready:
                return
            now = time.monotonic()
            for direction, file in enumerate(self.files):
                for packet in self._packets(file) if file in ready else ():
                    if self.lost[direction] or self.waiting_bytes[direction] > QUEUE_BYTES:
                        continue
                    late = self.seconds + self.random.uniform(-self.jitter, self.jitter)
                    self.last[direction] = max(self.last[direction], now + max(0, late))
                    self.waiting_bytes[direction] += len(packet)
                    heapq.heappush(self.waiting, (self.last[direction], number, direction, packet))
                    number += 1
            while self.waiting and self.waiting[0][0] <= now:
                _, _, direction, packet = heapq.heappop(self.waiting)
                self.waiting_bytes[direction] -= len(packet)
                if not self.lost[direction]:
                    self._deliver(direction, packet)

    @staticmethod
    def _packets(file):
        for _ in range(64):
            try:
                yield os.read(file, 1 << 16)
            except OSError:  # none more, or the device is down
                return

    def _deliver(self, direction, packet):
        try:
            os.write(self.files[1 - direction], packet)
            self.bytes[direction] += len(packet)
        except OSError:
            pass  # nobody is there


class Namespace:
    """A network namespace that is there as long as this process, which holds it, and its nodes."""

    def __init__(self, device, address):
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"],
                                       preexec_fn=harness.die_with_parent)
        own = os.readlink("/proc/self/ns/net")
        there = f"/proc/{self.holder.pid}/ns/net"
        harness.wait_until(lambda: os.readlink(there) != own, "the namespace")
        self.within = ("nsenter", f"--net={there}", "--")
        self.device = device
        harness.run("ip", "link", "set", device, "netns", self.holder.pid)
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{address}/24", "dev", device)
        self.run("ip", "link", "set", device, "mtu", MTU, "up")

    def run(self, *command):
        return harness.run(*self.within, *command)

    def close(self):
        self.holder.kill()
        self.holder.wait(harness.PATIENCE)


@functools.cache
def _missing():
    programs = [p for p in ("ip", "nsenter", "unshare") if shutil.which(p) is None]
    if programs:
        return ", ".join(programs)
    if os.geteuid() != 0:
        return "root"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"/dev/net/tun ({error.strerror})"
    try:
        harness.run("unshare", "--net", "true")
    except harness.CommandFailed as failed:
        return f"network namespaces ({failed.result.stderr.strip()})"
    return None


needs_network = unittest.skipIf(_missing(), f"needs {_missing()}")


class NetworkTest(harness.ClusterTest):
    hosts = {"node-a": "10.213.0.1", "node-b": "10.213.0.2"}

    def setUp(self):
        super().setUp()
        self.link = Link()
        self.addCleanup(self.link.close)
        self.spaces = {}
        for device, (name, address) in zip(self.link.names, self.hosts.items()):
            self.spaces[name] = Namespace(device, address)
            self.addCleanup(self.spaces[name].close)

    def node(self, name="node-a", **options):
        return super().node(name, host=self.hosts[name], within=self.spaces[name].within,
                            **options)


class LoadedPair(NetworkTest):
    """Volumes "ledger" and "fio" of group "g", in mode sync, both written to."""

    timeout = "1s"
    fio_megabytes = 16

    def start(self, **settings):
        self.a, self.b = self.start_pair(pool_size="1GiB",
                                         config={"replication": {"timeout": self.timeout}})
        for volume in ("ledger", "fio"):
            self.a.tandem("volume", "create", volume, "--size", "32MiB", "--group", "g")
        self.a.tandem("mirror", "add", "g", self.b.service, "--mode", "sync")
        for key, value in settings.items():
            self.a.tandem("group", "set", "g", f"{key}={value}")
        self.wait_in_sync(self.a, "g")
        self.ledger = harness.Ledger(self.directory)
        self.fio = Fio(self.directory, "fio", self.fio_megabytes)

    def begin_load(self, fio_seconds=8):
        self.ledger.begin(self.a, "ledger", per_second=WRITES_PER_SECOND)
        self.fio.begin(self.a, f"--rate={self.fio_megabytes * 1024 // fio_seconds}k")
        self.ledger.wait_for(200)

    def policy(self, node=None):
        return (node or self.a).group("g")["policy"]

    def wait_policy(self, state):
        return harness.wait_until(lambda: self.policy() if self.policy()["state"] == state else None,
                                  f"the policy to be {state}")

    def wait_lost(self):
        return harness.wait_until(
            lambda: self.b.group("g")["upstream"] if self.receipt()["primary_reachable"] is False
            else None, "node-b to count its primary as gone")

    def receipt(self):
        return harness.find(self.b.tandem("receipt", "g", json_output=True),
                            lambda d: "primary_reachable" in d)

    def assert_equal(self, primary, mirror):
        """The copies, by the checksum of every block, and the histories that led there."""
        self.wait_in_sync(primary, "g")
        compared = primary.tandem("verify", "g", json_output=True)
        self.assertEqual((compared["good"], compared["differing_blocks"]), (True, 0), compared)
        self.assertEqual(len(compared["copies"]), 2, compared)
        harness.wait_until(
            lambda: primary.group("g")["head"]["digest"] == mirror.group("g")["head"]["digest"],
            "both to have the same history")

    def take_over(self):
        """node-a dies; node-b must have all of it."""
        self.assertEqual(self.fio.end(), 0, "no write of fio may fail")
        self.assertIsNone(self.ledger.process.poll(), "no write of the ledger may fail")
        self.a.kill()
        self.assertIn("server was gone", self.ledger.end())
        self.promote(self.b, "g")
        self.assertIn(" 0 wrong", self.ledger.check(self.b, "ledger"))
        self.fio.verify(self.b)

    def rejoin(self):
        """node-a is node-b's mirror."""
        self.b.tandem("mirror", "add", "g", self.a.service, "--mode", "sync")
        if not self.a.is_running():
            self.a.start()
        self.assert_equal(self.b, self.a)
        self.assertEqual(self.a.group("g")["role"], "mirror")

    def finish(self):
        """Both pools are sound, and no copy was made anew."""
        for node in (self.a, self.b):
            self.assertNotIn("state=image", node.log(10**6), "a full copy")
            self.assertEqual(node.stop(), 0)
        self.assert_sound(self.a, self.b)
