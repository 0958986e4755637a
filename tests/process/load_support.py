"""fio as a load that knows what it wrote: the same seed makes the same blocks again, to verify them."""

import subprocess

import harness

FIO = ("fio", "--name=failover", "--ioengine=nbd", "--thread", "--rw=randwrite", "--bsrange=4k-64k",
       "--iodepth=16", "--randrepeat=1", "--serialize_overlap=1",
       "--verify=crc32c", "--verify_fatal=1", "--output-format=terse")
needs_fio = harness.needs_program("fio")


class Fio:
    def __init__(self, directory, volume, megabytes=24, seed=17):
        self.directory, self.volume, self.size = directory, volume, f"--size={megabytes}M"
        self.seed = seed
        self.process = None

    def _command(self, node, *options):
        return [*FIO, self.size, f"--randseed={self.seed}", f"--uri={node.uri(self.volume)}", *options]

    def run(self, node, *options):
        return harness.run(*self._command(node, *options), check=False,
                           cwd=self.directory)  # it leaves files where it runs

    def write(self, node):
        """Writes all of it."""
        written = self.run(node, "--do_verify=0")
        if written.returncode != 0:
            raise harness.CommandFailed(FIO, written)

    def begin(self, node, *options):
        """Writes in the background: all of it once, or what the options say."""
        self.process = subprocess.Popen(
            self._command(node, "--do_verify=0", *options), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.directory,
            preexec_fn=harness.die_with_parent)
        return self

    def is_running(self):
        return self.process.poll() is None

    def end(self):
        """How it ended; 0: all was written and acknowledged."""
        return self.process.wait(harness.PATIENCE)

    def verify(self, node):
        """Fails unless all that it wrote is there."""
        verified = self.run(node, "--verify_only")
        if verified.returncode != 0:
            raise harness.CommandFailed(FIO, verified)
