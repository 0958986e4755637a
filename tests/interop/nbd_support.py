"""What the NBD interoperability tests share: the server under test and its clients.

Each test class has a server of its own, which the environment chooses:
  TANDEM_NBD_MEMORY_SERVER=BINARY   nbd_memory_server with volumes in memory: every test
  TANDEM_NBD_NODE=unix or tcp       a real tandemd (from TANDEM_BIN) with volumes in a pool: all but
                                    the tests of exports that are broken by intention. Afterwards
                                    tandem-inspect must call the pool sound
  TANDEM_NBD_URI=URI                any server: the tests that need nothing but one writable export
                                    of at least 16 MiB, whose content is lost
A missing client ends the module with exit code 77, which CTest counts as skipped.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "process"))
import harness  # noqa: E402

MIB = 1 << 20
CLIENT_SECONDS = 60
SKIPPED = 77


def skip_module(reason):
    print(f"SKIPPED: {reason}", file=sys.stderr, flush=True)
    sys.exit(SKIPPED)


def require_programs(*names):
    """The programs come from Debian; another of the same name must not be picked up."""
    os.environ["PATH"] = "/usr/bin:/bin:/usr/sbin:/sbin"
    for name in names:
        if shutil.which(name) is None:
            skip_module(f"{name} is not installed")


class Server:
    """nbd_memory_server as a child process; every use ends with its clean stop."""

    exports = ("broken", "disk", "disk4k", "full", "huge", "readonly")

    def __init__(self, *arguments, unix=True, tcp=False, tls=None):
        binary = os.environ.get("TANDEM_NBD_MEMORY_SERVER")
        if not binary:
            sys.exit("set TANDEM_NBD_MEMORY_SERVER, TANDEM_NBD_NODE or TANDEM_NBD_URI")
        if tls:
            arguments += ("--tls-cert", tls["certificate"], "--tls-key", tls["key"], "--tls-ca",
                          tls["client_ca"])
        self.folder = tempfile.mkdtemp(prefix="tandem-interop-")
        self.socket = os.path.join(self.folder, "nbd.sock")
        endpoints = ["unix:" + self.socket] if unix else []
        endpoints += ["127.0.0.1:0"] if tcp else []
        self.log = open(os.path.join(self.folder, "log"), "w+")
        self.process = subprocess.Popen(
            [binary, *arguments, *endpoints], stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.port = None
        for _ in endpoints:
            line = self.process.stdout.readline().split()
            if len(line) != 2 or line[0] != "listening":
                self.log.seek(0)
                raise RuntimeError("the server did not start: " + self.log.read())
            if not line[1].startswith("unix:"):
                self.port = int(line[1].rsplit(":", 1)[1])

    def uri(self, export="disk"):
        return f"nbd+unix:///{export}?socket={self.socket}"

    def tcp_uri(self, export="disk"):
        return f"nbd://127.0.0.1:{self.port}/{export}"

    def stop(self):
        """Stops it and returns its counters; anything but a clean end is an error."""
        self.process.send_signal(signal.SIGTERM)
        try:
            output, _ = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise RuntimeError("the server did not stop within 20 s")
        self.log.seek(0)
        log = self.log.read()
        self.log.close()
        shutil.rmtree(self.folder)
        if self.process.returncode != 0:
            raise RuntimeError(f"the server ended with {self.process.returncode}: {log}")
        words = output.split()
        return {key: int(value) for key, value in (w.split("=") for w in words if "=" in w)}


class RealNode:
    """A tandemd with a pool of its own; what is in it at the end must be sound."""

    exports = ("disk", "disk4k", "huge")

    def __init__(self, tls=None):
        self.folder = tempfile.mkdtemp(prefix="tandem-interop-")
        self.over_tcp = os.environ["TANDEM_NBD_NODE"] == "tcp"
        self.node = harness.Node(self.folder, "node", pool_size="2GiB",
                                 config={"nbd": tls} if tls else None)
        self.socket = str(self.node.socket)
        self.port = int(self.node.nbd_tcp.rsplit(":", 1)[1])
        self.node.start()
        for name, size, block in (("disk", "64MiB", 512), ("disk4k", "64MiB", 4096),
                                  ("huge", "1TiB", 512)):
            self.node.tandem("volume", "create", name, "--size", size, "--block-size", block)

    def uri(self, export="disk"):
        return self.node.uri(export, tcp=self.over_tcp)

    def tcp_uri(self, export="disk"):
        return self.node.uri(export, tcp=True)

    def stop(self):
        ended = self.node.stop()
        log = self.node.log()
        checked = harness.run(harness.BIN / "tandem-inspect", self.node.pool, "verify", check=False)
        shutil.rmtree(self.folder)
        if ended != 0 or checked.returncode != 0:
            raise RuntimeError(f"the node ended with {ended}:\n{log}\n{checked.stdout}")
        return {}


def start_server(*arguments, tcp=False, tls=None):
    """The server that the environment chooses; `arguments` are for nbd_memory_server."""
    if os.environ.get("TANDEM_NBD_NODE"):
        return RealNode(tls)
    return Server(*arguments, tcp=tcp, tls=tls)


class NbdTest(unittest.TestCase):
    """`self.uri(export)` names an export of the server under test."""

    server = None
    server_arguments = ()
    tcp = False

    @classmethod
    def setUpClass(cls):
        cls.external = os.environ.get("TANDEM_NBD_URI")
        if not cls.external:
            cls.server = start_server(*cls.server_arguments, tcp=cls.tcp)

    @classmethod
    def tearDownClass(cls):
        if cls.server:
            counters = cls.server.stop()
            if counters.get("violations"):
                raise RuntimeError("the server saw a protocol violation of a correct client")

    def needs_own_server(self):
        if self.external:
            self.skipTest("needs a server that this test started")

    def uri(self, export="disk"):
        exports = ("disk",) if self.external else self.server.exports
        # An empty or unknown name is for tests of what the server says to it.
        if export in Server.exports and export not in exports:
            self.skipTest(f"this server has no export '{export}'")
        return self.external or self.server.uri(export)

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="tandem-interop-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def run_client(self, *command, fails=False, stdin=None):
        """Runs a client and returns its output; a client that hangs fails the test."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=CLIENT_SECONDS,
                              input=stdin, cwd=self.folder)  # fio leaves files where it runs
        if fails:
            self.assertNotEqual(done.returncode, 0, f"{command} should have failed")
            return done.stdout + done.stderr
        self.assertEqual(done.returncode, 0,
                         f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def run_json(self, *command):
        return json.loads(self.run_client(*command))

    def clear(self, uri):
        """Writes zeroes over the whole export."""
        zeroes = self.path("zeroes")
        with open(zeroes, "wb") as image:
            image.truncate(int(self.run_client("nbdinfo", "--size", uri)))
        self.run_client("nbdcopy", zeroes, uri)

    def sparse_image(self, size, seed):
        """A file of `size` bytes with data in some of its 64 KiB pieces, and its path."""
        path = self.path(f"image-{seed}")
        chance = random.Random(seed)
        with open(path, "wb") as image:
            image.truncate(size)
            for at in range(0, size, 65536):
                if chance.random() < 0.4:
                    image.seek(at)
                    image.write(chance.randbytes(min(65536, size - at)))
        return path


def main():
    unittest.main(module="__main__", verbosity=2)
