"""Garbage, silence and crowds at every port: a pair that replicates goes on, other clients are
served, and memory stays bounded.

All the while a writer fills a ledger through one of the same ports, in mode sync: it must make
progress during the attack, and everything that was acknowledged must be there.
"""

import contextlib
import resource
import select
import socket
import struct
import time

import harness
from harness import MIB

CONNECTIONS_MAX = 24
# Far above what 24 clients in their handshakes need, far below what unbounded input would take.
GROWTH_MAX = 96 * MIB
NBD_GREETING = 18
OPTION, REQUEST = b"IHAVEOPT", 0x25609513
EXPORT_NAME, INFO, GO, STRUCTURED_REPLY = 1, 6, 7, 8
READ, WRITE = 0, 1


def option(number, data=b"", length=None):
    return OPTION + struct.pack(">II", number, len(data) if length is None else length) + data


def request(command, offset, length, handle=1):
    return struct.pack(">IHHQQI", REQUEST, 0, command, handle, offset, length)


def memory(node):
    with open(f"/proc/{node.process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def drain(client, seconds):
    """Reads until the other side closes (True) or so much time has passed (False)."""
    client.settimeout(seconds)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@harness.needs_nbd
class Hostile(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

    def start(self, **options):
        # Little memory for the writer's own records, so that growth is the attack's.
        self.a, self.b = self.start_pair(config={"nbd": {"connections_max": CONNECTIONS_MAX},
                                                 "replication": {"memory": "4MiB"}}, **options)
        self.replicated_volume(self.a, self.b, mode="sync")
        self.wait_in_sync(self.a, "v")
        self.ledger = harness.Ledger(self.directory)
        self.ledger.begin(self.a, "v")
        self.ledger.wait_for(200)

    def assert_grew_less(self, grown, limit, name):
        # A checked build keeps what was freed for a while, to notice who still uses it.
        if not harness.sanitized():
            self.assertLess(grown, limit, name)

    @contextlib.contextmanager
    def unimpressed(self):
        """What is done inside must not be noticed by the writer, the mirror and the operator."""
        before = {node.name: memory(node) for node in (self.a, self.b)}
        yield
        self.ledger.wait_for(200)
        for node in (self.a, self.b):
            self.assertIsNone(node.process.poll(), f"{node.name} has ended")
            self.assertTrue(node.status())
            self.assert_grew_less(memory(node) - before[node.name], GROWTH_MAX, node.name)
        self.assertTrue(self.a.slot("v")["in_sync"])

    def finish(self):
        self.assertIsNone(self.ledger.process.poll(), "the writer has ended")
        self.ledger.process.terminate()
        self.ledger.process.communicate(timeout=harness.PATIENCE)
        self.assertIn(" 0 wrong", self.ledger.check(self.a, "v"))
        self.assertEqual([self.a.stop(), self.b.stop()], [0, 0])

    def doors(self):
        def tcp(address):
            host, port = address.rsplit(":", 1)
            return lambda: socket.create_connection((host, int(port)), timeout=harness.PATIENCE)

        def unix(path):
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(harness.PATIENCE)
            try:
                client.connect(str(path))
            except OSError:
                client.close()
                raise
            return client

        return {"nbd-unix": lambda: unix(self.a.socket), "nbd-tcp": tcp(self.a.nbd_tcp),
                "service": tcp(self.a.service), "service of the mirror": tcp(self.b.service)}

    # --- garbage ---------------------------------------------------------------------------------

    HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

    def garbage(self, chance):
        """One hostile greeting."""
        noise = chance.randbytes(chance.randrange(1, 20000))
        flags = struct.pack(">I", 3)
        return chance.choice((
            noise,
            flags + noise,
            flags + OPTION + noise,
            flags + option(EXPORT_NAME, b"v" * 4096),
            flags + option(GO, length=0xffffffff) + noise,
            flags + option(INFO, struct.pack(">I", 0xffffffff) + b"v"),
            flags + option(chance.randrange(1 << 32), b"?" * 100) * 50,
            flags + option(STRUCTURED_REPLY) * 500,
            flags + option(EXPORT_NAME, b"v") + noise,
            flags + option(EXPORT_NAME, b"v") + request(WRITE, 0, 0xffffffff) + noise,
            flags + option(EXPORT_NAME, b"v") + request(READ, 1 << 63, 4096) + request(77, 0, 0),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise,  # TLS, as far as it goes
            self.HTTP2 + noise,
            # A frame of headers that claims 16 MiB, and a flood of settings.
            self.HTTP2 + b"\xff\xff\xff\x01\x04\x00\x00\x00\x01" + noise,
            self.HTTP2 + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 1000,
        ))

    def throw_garbage(self, rounds):
        chance = harness.chance("garbage")
        for name, connect in self.doors().items():
            with self.subTest(name), self.unimpressed():
                for _ in range(rounds):
                    with connect() as client:
                        with contextlib.suppress(OSError):  # it may close while we are talking
                            client.sendall(self.garbage(chance))
                            if chance.random() < 0.5:
                                client.shutdown(socket.SHUT_WR)
                            drain(client, 0.02)

    def test_garbage_with_tls(self):
        self.start()
        self.throw_garbage(60)
        self.finish()

    def test_garbage_without_tls(self):
        """In plain text the garbage gets as far as HTTP/2."""
        self.start(tls=False)
        self.throw_garbage(60)
        self.finish()

    # --- silence and crowds ----------------------------------------------------------------------

    def test_the_silent_are_sent_away(self):
        self.start()
        with contextlib.ExitStack() as stack, self.unimpressed():
            silent = {name: [stack.enter_context(connect()) for _ in range(8)]
                      for name, connect in self.doors().items() if name != "nbd-unix"}
            for client in silent["nbd-tcp"][:4]:  # these have begun to talk
                client.sendall(struct.pack(">I", 3) + OPTION)
            self.ledger.wait_for(200)
            waiting = {client: name for name, clients in silent.items() for client in clients}
            end = time.monotonic() + harness.PATIENCE
            while waiting and time.monotonic() < end:
                for client in select.select(list(waiting), [], [], 1)[0]:
                    try:
                        gone = not client.recv(4096)
                    except OSError:
                        gone = True
                    if gone:
                        del waiting[client]
            self.assertEqual(sorted(set(waiting.values())), [], "the silent are still connected")
        self.finish()

    def test_crowds(self):
        self.start()
        for name, connect in self.doors().items():
            with self.subTest(name), contextlib.ExitStack() as stack, self.unimpressed():
                for _ in range(10 * CONNECTIONS_MAX):
                    with contextlib.suppress(OSError):  # refused is fine
                        stack.enter_context(connect())
                self.ledger.wait_for(200)  # who was there before is served
                self.assertTrue(self.a.status())
            # The crowd has left: there is room for everybody again.
            harness.wait_until(lambda: self.a.serves("v"), "a new client to be served")
        self.finish()

    # --- clients that ask and do not listen ------------------------------------------------------

    def attach(self, connect):
        """A raw client in transmission, with simple replies."""
        client = connect()
        client.recv(NBD_GREETING, socket.MSG_WAITALL)
        client.sendall(struct.pack(">I", 3) + option(EXPORT_NAME, b"v"))
        client.recv(10, socket.MSG_WAITALL)  # size and flags; no zeroes were agreed on
        return client

    def test_readers_that_do_not_read(self):
        self.start()
        connect = self.doors()["nbd-unix"]
        before = memory(self.a)
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                client = stack.enter_context(self.attach(connect))
                client.settimeout(0.2)
                with contextlib.suppress(OSError):
                    client.sendall(request(READ, 0, 8 * MIB) * 1000)
            time.sleep(0.5)
            self.ledger.wait_for(200)
            grown = memory(self.a) - before
            print(f"8 clients that do not read: {grown / MIB:.0f} MiB", flush=True)
            # Together they may have memory.buffers under way, and one request each.
            self.assert_grew_less(grown, 32 * MIB + 8 * 8 * MIB + GROWTH_MAX, "node-a")
        self.finish()

    def test_writers_that_do_not_write(self):
        """The header of a large write, and then nothing, or a byte now and then."""
        self.start()
        connect = self.doors()["nbd-unix"]
        with contextlib.ExitStack() as stack, self.unimpressed():
            for _ in range(8):
                client = stack.enter_context(self.attach(connect))
                client.sendall(request(WRITE, 0, 4 * MIB) + b"x" * 1000)
            self.ledger.wait_for(200)
        self.finish()


if __name__ == "__main__":
    harness.main()
