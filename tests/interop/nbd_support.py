"""What the NBD interoperability tests share: the server under test and its clients.

Without TANDEM_NBD_URI, each test module starts nbd_memory_server (TANDEM_NBD_MEMORY_SERVER names
the binary). With it, the tests that need nothing but a writable export run against that export,
whose content is lost; it must hold at least 16 MiB. A missing client ends the module with exit
code 77, which CTest counts as skipped.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

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

    def __init__(self, *arguments, unix=True, tcp=False):
        binary = os.environ.get("TANDEM_NBD_MEMORY_SERVER")
        if not binary:
            sys.exit("neither TANDEM_NBD_URI nor TANDEM_NBD_MEMORY_SERVER is set")
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


class NbdTest(unittest.TestCase):
    """`self.uri(export)` names an export of the server under test."""

    server = None
    server_arguments = ()
    tcp = False

    @classmethod
    def setUpClass(cls):
        cls.external = os.environ.get("TANDEM_NBD_URI")
        if not cls.external:
            cls.server = Server(*cls.server_arguments, tcp=cls.tcp)

    @classmethod
    def tearDownClass(cls):
        if cls.server:
            counters = cls.server.stop()
            if counters.get("violations"):
                raise RuntimeError("the server saw a protocol violation of a correct client")

    def uri(self, export="disk"):
        if not self.external:
            return self.server.uri(export)
        if export != "disk":
            self.skipTest(f"an external server has no export '{export}'")
        return self.external

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
