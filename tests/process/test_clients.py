"""What NBD clients see of a switchover, by the runbook's table.

libnbd and the tools made of it report an error, and are right again when they are started again;
`nbdkit --filter=retry nbd` in front of one asks again, and its client sees a pause. The address that
all know follows the primary: a symbolic link to one of two sockets. QEMU is in test_switchover.
"""

import os
import subprocess
import threading
import time

import harness
from harness import MIB

SYSTEM = {**os.environ, "PATH": "/usr/bin:" + os.environ.get("PATH", "")}  # nbdsh's Python


@harness.needs_nbd
class Clients(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.start_pair()
        self.replicated_volume(self.a, self.b, mode="sync")
        self.link = self.directory / "nbd"
        self.link.symlink_to(self.a.socket)
        self.uri = f"nbd+unix:///v?socket={self.link}"
        with self.a.nbd("v") as disk:
            for place in range(64):
                disk.pwrite(os.urandom(MIB), place * MIB)
            disk.flush()

    def switch_over(self, old, new):
        harness.wait_until(lambda: old.slot("v")["state"] == "following", "the mirror to follow")
        old.tandem("switchover", "v")
        self.link.unlink()
        self.link.symlink_to(new.socket)
        harness.wait_until(lambda: new.group("v")["state"] == "serving", "it to serve")

    def spawn(self, *command, **options):
        process = subprocess.Popen(command, stderr=subprocess.PIPE,
                                   preexec_fn=harness.die_with_parent, **options)
        self.addCleanup(process.kill)
        return process

    def test_nbdcopy_ends_with_an_error_and_is_started_again(self):
        """Without an error would be worse: the copy would be short."""
        copy = self.spawn("nbdcopy", self.uri, "-", stdout=subprocess.PIPE)
        os.read(copy.stdout.fileno(), 4096)  # the rest does not fit into the pipe: it waits
        self.switch_over(self.a, self.b)
        _, said = copy.communicate(timeout=harness.PATIENCE)
        self.assertNotEqual(copy.returncode, 0)
        self.assertIn(b"Transport endpoint is not connected", said)
        harness.run("nbdcopy", self.uri, str(self.directory / "copy"))
        self.assertEqual((self.directory / "copy").read_bytes(), self.b.read_all("v"))

    def test_nbdsh_gets_an_error_and_connects_again(self):
        script = ("import time\n"
                  "while True:\n"
                  "    h.pread(4096, 0)\n"
                  "    time.sleep(0.01)\n")
        shell = self.spawn("nbdsh", "-u", self.uri, "-c", script, env=SYSTEM,
                           stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        self.assertIsNone(shell.poll(), shell.poll() and shell.stderr.read())
        self.switch_over(self.a, self.b)
        _, said = shell.communicate(timeout=harness.PATIENCE)
        self.assertNotEqual(shell.returncode, 0)
        self.assertIn(b"nbd_pread", said)
        harness.run("nbdsh", "-u", self.uri, "-c", "h.pwrite(b'x' * 4096, 0); h.flush()",
                    env=SYSTEM)

    def test_nbdinfo_asks_whoever_serves(self):
        self.assertEqual(int(harness.run("nbdinfo", "--size", self.uri).stdout), 64 * MIB)
        self.switch_over(self.a, self.b)
        self.assertEqual(int(harness.run("nbdinfo", "--size", self.uri).stdout), 64 * MIB)

    @harness.needs_mounts
    def test_nbdfuse_answers_io_errors_until_it_is_started_again(self):
        mounted = self.directory / "fuse"
        mounted.mkdir()

        def start():
            server = self.spawn("nbdfuse", str(mounted / "volume"), self.uri)
            harness.wait_until((mounted / "volume").exists, "nbdfuse to show the volume")
            return server

        def end(server):
            harness.run("fusermount3", "-u", str(mounted))
            server.wait(timeout=harness.PATIENCE)

        server = start()
        try:
            with open(mounted / "volume", "rb", buffering=0) as disk:
                self.assertEqual(len(disk.read(4096)), 4096)
                self.switch_over(self.a, self.b)
                with self.assertRaises(OSError):
                    os.pread(disk.fileno(), MIB, 32 * MIB)
        finally:
            end(server)
        server = start()
        try:
            with open(mounted / "volume", "rb", buffering=0) as disk:
                self.assertEqual(len(disk.read(4096)), 4096)
        finally:
            end(server)

    @harness.needs_program("nbdkit")
    def test_nbdkit_with_its_retry_filter_asks_again(self):
        socket = self.directory / "retry"
        self.spawn("nbdkit", "-f", "-U", str(socket), "--filter=retry", "nbd", f"socket={self.link}",
                   "export=v", "retries=30", "retry-delay=1", "retry-exponential=no",
                   stdout=subprocess.DEVNULL)
        harness.wait_until(socket.exists, "nbdkit to listen")
        disk = harness.nbd.NBD()
        disk.connect_uri(f"nbd+unix:///?socket={socket}")
        stop = threading.Event()
        written, failed = [], []

        def write():
            while not stop.is_set() and not failed:
                number = len(written)
                try:
                    disk.pwrite(bytes([number % 255 + 1]) * 4096, number % 1024 * 4096)
                    disk.flush()
                except harness.nbd.Error as error:
                    failed.append(str(error))
                written.append(number)
                time.sleep(0.002)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for old, new in ((self.a, self.b), (self.b, self.a)):
                before = len(written)
                self.switch_over(old, new)
                harness.wait_until(lambda before=before: failed or len(written) > before + 100,
                                   "writes to go on")
        finally:
            stop.set()
            writer.join()
        self.assertEqual(failed, [])
        disk.shutdown()
        last = {number % 1024: number % 255 + 1 for number in written}
        with self.a.nbd("v") as served:
            for place, pattern in last.items():
                self.assertEqual(bytes(served.pread(4096, place * 4096)), bytes([pattern]) * 4096)


if __name__ == "__main__":
    harness.main()
