"""nbdinfo: what the handshake tells, and base:allocation as a map."""

import nbd_support
from nbd_support import MIB

nbd_support.require_programs("nbdinfo", "nbdcopy")


class NbdInfo(nbd_support.NbdTest):
    tcp = True

    def describe(self, uri):
        return self.run_json("nbdinfo", "--json", uri)

    def test_export(self):
        told = self.describe(self.uri())
        self.assertEqual(told["protocol"], "newstyle-fixed")
        self.assertTrue(told["structured"])
        export = told["exports"][0]
        self.assertGreaterEqual(export["export-size"], 16 * MIB)
        self.assertEqual(export["contexts"], ["base:allocation"])
        for ability in ("flush", "fua", "trim", "zero", "fast_zero", "multi_conn", "df", "cache"):
            self.assertTrue(export["can_" + ability], ability)
        self.assertFalse(export["is_read_only"])
        self.assertIn(export["block_size_minimum"], (512, 4096))
        self.assertEqual(export["block_size_preferred"], 4096)
        self.assertGreaterEqual(export["block_size_maximum"], 32 * MIB)

    def test_size(self):
        size = int(self.run_client("nbdinfo", "--size", self.uri()))
        self.assertEqual(size, self.describe(self.uri())["exports"][0]["export-size"])

    def test_logical_block_of_4096(self):
        export = self.describe(self.uri("disk4k"))["exports"][0]
        self.assertEqual(export["block_size_minimum"], 4096)

    def test_read_only(self):
        export = self.describe(self.uri("readonly"))["exports"][0]
        self.assertTrue(export["is_read_only"])
        self.assertFalse(export["can_trim"])

    def test_list(self):
        self.needs_own_server()
        told = self.run_json("nbdinfo", "--json", "--list", self.uri(""))
        names = [export["export-name"] for export in told["exports"]]
        self.assertEqual(names, list(self.server.exports))

    def test_unknown_export(self):
        self.needs_own_server()
        said = self.run_client("nbdinfo", self.uri("nothing"), fails=True)
        self.assertIn("No such file or directory for export", said)

    def test_tcp(self):
        self.needs_own_server()
        export = self.describe(self.server.tcp_uri())["exports"][0]
        self.assertEqual(export["export-name"], "disk")

    def test_map(self):
        extents = self.run_json("nbdinfo", "--json", "--map", self.uri("readonly"))
        self.assertEqual(
            [(e["offset"], e["length"], e["description"]) for e in extents],
            [(0, 2 * MIB, "data"), (2 * MIB, 2 * MIB, "hole,zero")])

    def test_map_of_a_tebibyte(self):
        extents = self.run_json("nbdinfo", "--json", "--map", "--totals", self.uri("huge"))
        self.assertEqual([(e["size"], e["description"]) for e in extents], [(1 << 40, "hole,zero")])

    def test_map_of_what_was_written(self):
        self.run_client("nbdcopy", "--destination-is-zero",
                        self.sparse_image(16 * MIB, seed=1), self.uri("disk4k"))
        extents = self.run_json("nbdinfo", "--json", "--map", self.uri("disk4k"))
        self.assertEqual(sum(e["length"] for e in extents), 64 * MIB)
        kinds = [e["description"] for e in extents]
        self.assertEqual(set(kinds), {"data", "hole,zero"})
        for one, next_one in zip(kinds, kinds[1:]):
            self.assertNotEqual(one, next_one)


if __name__ == "__main__":
    nbd_support.main()
