"""nbdcopy: whole images in and out, over several connections, with holes kept as holes."""

import filecmp

import nbd_support
from nbd_support import MIB

nbd_support.require_programs("nbdcopy", "nbdinfo", "cmp", "truncate")


class NbdCopy(nbd_support.NbdTest):
    tcp = True

    def size(self, uri):
        return int(self.run_client("nbdinfo", "--size", uri))

    def round_trip(self, uri, *options):
        self.clear(uri)
        size = self.size(uri)
        image = self.sparse_image(16 * MIB, seed=len(options))
        self.run_client("nbdcopy", *options, "--destination-is-zero", "--flush", image, uri)
        back = self.path("back")
        self.run_client("nbdcopy", *options, uri, back)
        self.run_client("truncate", "--size", str(size), image)
        self.assertTrue(filecmp.cmp(image, back, shallow=False))

    def test_one_connection(self):
        self.round_trip(self.uri(), "--connections=1", "--threads=1", "--requests=1")

    def test_many_connections(self):
        self.round_trip(self.uri(), "--connections=8", "--requests=64")

    def test_synchronous(self):
        self.round_trip(self.uri(), "--synchronous")

    def test_tcp(self):
        self.needs_own_server()
        self.round_trip(self.server.tcp_uri())

    def test_odd_request_sizes(self):
        self.round_trip(self.uri("disk4k"), "--request-size=8192", "--sparse=4096")

    def test_largest_request_size(self):
        self.round_trip(self.uri(), f"--request-size={32 * MIB}")

    def test_between_exports(self):
        self.round_trip(self.uri())
        self.run_client("nbdcopy", self.uri(), self.uri("disk4k"))
        one, two = self.path("one"), self.path("two")
        self.run_client("nbdcopy", self.uri(), one)
        self.run_client("nbdcopy", self.uri("disk4k"), two)
        self.assertTrue(filecmp.cmp(one, two, shallow=False))

    def test_full_export_says_so(self):
        image = self.path("image")
        with open(image, "wb") as file:
            file.write(b"x" * (4 * MIB))
        said = self.run_client("nbdcopy", image, self.uri("full"), fails=True)
        self.assertIn("No space left", said)
        self.clear(self.uri("full"))

    def test_failing_export_says_so(self):
        # Small requests: a larger read of a hole is answered from the allocation.
        said = self.run_client("nbdcopy", "--no-extents", "--request-size=32768",
                               self.uri("broken"), self.path("out"),
                               fails=True)
        self.assertIn("Input/output error", said)

    def test_a_tebibyte_of_nothing(self):
        self.run_client("nbdcopy", self.uri("huge"), "null:")


if __name__ == "__main__":
    nbd_support.main()
