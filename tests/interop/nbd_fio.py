"""fio: random and overlapping load with verification of every block."""

import os
import unittest

import nbd_support

nbd_support.require_programs("fio")


class Fio(nbd_support.NbdTest):
    def fio(self, *options, export="disk"):
        said = self.run_client(
            "fio", "--name=interop", "--ioengine=nbd", f"--uri={self.uri(export)}", "--thread",
            "--norandommap", "--randrepeat=0", "--size=16M", "--output-format=terse", *options)
        self.assertNotIn("verify:", said)

    def verify(self, *options, **named):
        self.fio("--verify=crc32c", "--verify_fatal=1", "--do_verify=1", *options, **named)

    def test_random_writes(self):
        self.verify("--rw=randwrite", "--bs=4k", "--iodepth=32", "--io_size=32M")

    def test_mixed_sizes(self):
        self.verify("--rw=randwrite", "--bsrange=512-256k", "--bs_unaligned=0", "--blockalign=512",
                    "--iodepth=16", "--io_size=32M", "--serialize_overlap=1")

    def test_large_sequential(self):
        self.verify("--rw=write", "--bs=1M", "--iodepth=8")

    def test_flush_between(self):
        self.verify("--rw=randwrite", "--bs=4k", "--iodepth=16", "--fsync=8", "--io_size=8M")

    def test_logical_block_of_4096(self):
        self.verify("--rw=randwrite", "--bs=4k", "--iodepth=32", export="disk4k")

    def test_reads_and_writes_and_trims(self):
        self.fio("--rw=randtrimwrite", "--bs=8k", "--iodepth=8", "--io_size=8M")
        self.fio("--rw=randrw", "--bs=4k", "--iodepth=64", "--io_size=64M")


class FioAsynchronous(Fio):
    """The same with a volume that completes in later turns, as a real one does."""

    server_arguments = ("--async",)

    @classmethod
    def setUpClass(cls):
        if os.environ.get("TANDEM_NBD_URI") or os.environ.get("TANDEM_NBD_NODE"):
            raise unittest.SkipTest("any other server is asynchronous anyway")
        super().setUpClass()


if __name__ == "__main__":
    nbd_support.main()
