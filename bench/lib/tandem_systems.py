"""Tandem as a compared system, and the proof after each round that its copies are equal.

`none` is a node without a mirror. `async`, `flush` and `sync` are one volume on one pair of nodes,
whose mode is changed between cells; `sync-tls` is a second pair with mutual TLS. The nodes run with
the defaults of a real node, but for what the command line says, and pools that are prepared as a
whole before, since the files of the others were written before, too."""

import hashlib
import json
import os

from lib.machine import MIB
from lib.systems import EXPORT, System

PIECE = 4 * MIB


def pool_is_prepared(node):
    """Every free zone was written once."""
    pool = node.tandem("pool", "show", json_output=True)["pools"][0]
    return pool["prepared_bytes"] == pool["zones_free"] * pool["zone_bytes"]


class Cluster:
    """One node, or a pair in which the first is primary, with one volume written end to end."""

    def __init__(self, context, name, nodes, tls):
        self.context = context
        self.harness = context.harness
        self.directory = context.directory / name
        self.names = ("node-a", "node-b")[:nodes]
        self.tls = tls
        self.nodes = []
        self.mode = None

    def start(self):
        if self.nodes:
            return
        certificates = None
        if self.tls:
            certificates = self.directory / "certificates"
            self.harness.run(self.harness.REPOSITORY / "deploy" / "certificates", certificates,
                             *(f"{name}:127.0.0.1,localhost" for name in self.names))
        tables = {"pool": {"zone_size": "16MiB", "prepare": "all"},
                  "memory": {"map_cache": f"{self.context.map_cache >> 20}MiB",
                             "buffers": "128MiB"},
                  "replication": {"heartbeat": "1s", "timeout": "5s", "peer_wait": "10s"},
                  "log": {"level": "info"}}
        for key, value in self.context.tandem_config.items():
            table, _, entry = key.partition(".")
            tables.setdefault(table, {})[entry] = value
        pool = f"{int(self.context.pool_factor * self.context.size) // MIB + 512}MiB"
        for name in self.names:
            node = self.harness.Node(self.directory, name, certificates, pool_size=pool,
                                     config=tables)
            self.nodes.append(node)
            node.start()
        for node in self.nodes:
            self.harness.wait_until(lambda node=node: pool_is_prepared(node),
                                    "the pool to be prepared", timeout=600)
        primary = self.nodes[0]
        primary.tandem("volume", "create", EXPORT, "--size", f"{self.context.size // MIB}MiB")
        if len(self.nodes) > 1:
            self.mode = "async"
            primary.tandem("mirror", "add", EXPORT, self.nodes[1].service, "--mode", self.mode)
        with primary.nbd(EXPORT) as disk:
            piece = os.urandom(PIECE)
            for at in range(0, self.context.size, PIECE):
                disk.pwrite(piece[:self.context.size - at], at)
            disk.flush()
        self.settle()

    def set_mode(self, mode):
        if mode is not None and mode != self.mode:
            self.nodes[0].tandem("mode", EXPORT, mode)
            self.mode = mode
        self.settle()

    def settle(self):
        """Waits until the mirror has everything."""
        if len(self.nodes) > 1:
            self.harness.wait_until(lambda: self._equal(self.nodes[0]),
                                    "the mirror to have everything", timeout=300)

    def _equal(self, primary):
        slot = primary.slot(EXPORT)
        return (slot["state"] == "following" and slot["missing_records"] == 0 and
                (self.mode != "sync" or slot["in_sync"]))

    def degradations(self):
        """How often the primary went on without its mirror since it started."""
        return self.nodes[0].log_path.read_text(errors="replace").count("event=slot.degraded")

    def latency(self):
        """Of all nodes. None: TANDEM_BIN is of a release without `tandem latency`."""
        told = self.nodes[0].tandem("--json", "latency", EXPORT, check=False)
        return json.loads(told.stdout) if told.returncode == 0 else None

    def checksum(self, node):
        """Of the whole volume, read through NBD."""
        digest = hashlib.sha256()
        with node.nbd(EXPORT) as disk:
            for at in range(0, self.context.size, PIECE):
                digest.update(disk.pread(min(PIECE, self.context.size - at), at))
        return digest.hexdigest()

    def verify_round(self):
        """Reads the volume on one node, switches over, reads it on the other, and back. True, or
        raises."""
        if len(self.nodes) == 1:
            return True
        self.settle()
        a, b = self.nodes
        before = self.checksum(a)
        a.tandem("switchover", EXPORT)
        after = self.checksum(b)
        self.harness.wait_until(lambda: self._equal(b), "the old primary to follow")
        b.tandem("switchover", EXPORT)
        self.harness.wait_until(lambda: self._equal(a), "the mirror to follow again")
        require_equal(before, after, f"{self.directory.name}: after a switchover")
        return True

    def verify_end(self):
        """Stops the primary for good; what is left must be the same, and both pools sound."""
        self.settle()
        first, last = self.nodes[0], self.nodes[-1]
        before = self.checksum(first)
        first.stop()
        if last is first:
            first.start()
        else:
            self.harness.wait_until(lambda: last.tandem("promote", EXPORT, "--yes"),
                                    "the promotion")
        require_equal(before, self.checksum(last), f"{self.directory.name}: after the end")
        for node in self.nodes:
            node.stop()
            self.harness.run(self.harness.BIN / "tandem-inspect", node.pool, "verify",
                             timeout=1200)
        return True

    def close(self):
        for node in self.nodes:
            node.kill()
        self.nodes = []


def require_equal(before, after, where):
    if before != after:
        raise RuntimeError(f"{where} the volume has other content: sha256 {after}, was {before}")


class Tandem(System):
    cluster_name, nodes, tls, mode = "single", 1, False, None

    def __init__(self, context):
        super().__init__(context)
        self.cluster = context.clusters.setdefault(
            self.cluster_name, Cluster(context, self.cluster_name, self.nodes, self.tls))

    def pids(self):
        return [node.process.pid for node in self.cluster.nodes]

    @property
    def socket(self):
        return self.cluster.nodes[0].socket

    def start(self):
        self.cluster.start()

    def activate(self):
        self.cluster.set_mode(self.mode)
        self.degradations = self.cluster.degradations()

    def settle(self):
        self.cluster.settle()
        if self.cluster.degradations() != self.degradations:
            raise RuntimeError("the primary went on without its mirror meanwhile: what was "
                               f"measured is not mode {self.mode}")

    def latency(self):
        return self.cluster.latency()

    def close(self):
        self.cluster.close()


class NoMirror(Tandem):
    name, title = "none", "Tandem, no mirror"
    note = "One copy."


class Async(Tandem):
    name, title = "async", "Tandem async"
    note = "A write and a flush wait for the primary only."
    cluster_name, nodes, mode = "pair", 2, "async"


class Flush(Async):
    name, title, mode = "flush", "Tandem flush", "flush"
    note = "A write waits for the primary, a flush for both nodes."


class Sync(Async):
    name, title, mode = "sync", "Tandem sync", "sync"
    note = "A write waits until both nodes have written it, a flush until both have flushed it."


class SyncTls(Tandem):
    name, title, mode = "sync-tls", "Tandem sync, mutual TLS", "sync"
    note = "The same with the link's default, mutual TLS."
    cluster_name, nodes, tls = "tls", 2, True
