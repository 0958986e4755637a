"""tandem-inspect on the pool of a real daemon: every command in both forms, what it says is what was
done, exit codes, and a damaged pool.
"""

import json

import harness
from harness import MIB, nbd

BLOCK = 4096
SOUND, PROBLEMS, UNUSABLE = 0, 1, 2
COMMANDS = (("superblock",), ("zones",), ("groups",), ("log", "--group", "g"),
            ("map", "--group", "g", "--volume", "v"),
            ("block", "--group", "g", "--volume", "v", "--block", "5"), ("verify",))


@harness.needs_nbd
class Inspect(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.a = self.node("node-a", tls=False).start()
        for name, group in (("v", "g"), ("w", "g"), ("other", "other")):
            self.a.tandem("volume", "create", name, "--size", "64MiB", "--group", group)
        with self.a.nbd("v") as disk:
            disk.pwrite(b"1" * MIB, 0)
            disk.trim(BLOCK, 8 * BLOCK)
            disk.zero(BLOCK, 9 * BLOCK, nbd.CMD_FLAG_NO_HOLE)
            disk.flush()
        self.a.tandem("mode", "g", "flush")  # a checkpoint; what follows is behind it
        self.checkpoint = self.a.group("g")["checkpoint"]
        with self.a.nbd("v") as disk:
            disk.pwrite(b"2" * BLOCK, 5 * BLOCK)
            disk.flush()
        self.status = self.a.status()
        self.group = self.a.group("g")
        self.a.kill()

    def inspect(self, *arguments, code=SOUND):
        result = harness.inspect(self.a.pool, *arguments, check=False)
        self.assertEqual(result.returncode, code, f"{arguments}: {result.stdout}{result.stderr}")
        return result

    def look(self, *arguments, code=SOUND):
        return json.loads(self.inspect(*arguments, "--json", code=code).stdout)

    def test_every_command_in_both_forms_and_nothing_is_changed(self):
        harness.wait_until(lambda: harness.pools_are_free(self.a.pool), "the pool to be let go")
        before = harness.run("sha256sum", self.a.pool).stdout
        for command in COMMANDS:
            with self.subTest(command[0]):
                self.assertGreater(len(self.inspect(*command).stdout.splitlines()), 1)
                self.assertIsInstance(self.look(*command), dict)
        self.assertEqual(harness.run("sha256sum", self.a.pool).stdout, before)

    def test_superblock_and_zones(self):
        pool = self.status["pool"]
        superblock = self.look("superblock")
        self.assertEqual(superblock["pool"], pool["id"])
        self.assertEqual(superblock["bytes"], pool["size_bytes"])
        self.assertEqual(superblock["zone_bytes"], pool["zone_bytes"])
        self.assertEqual(superblock["copies"], ["whole, counts", "whole"])
        zones = self.look("zones")
        self.assertEqual(zones["free"], pool["zones_free"])
        self.assertEqual(zones["end"] - zones["first"], pool["zones_total"])
        self.assertEqual({run["group"] for run in zones["runs"] if "group" in run}, {"g", "other"})

    def test_groups_and_log(self):
        groups = {g["name"]: g for g in self.look("groups")["groups"]}
        self.assertEqual(set(groups), {"g", "other"})
        self.assertEqual(groups["g"]["id"], self.group["id"])
        self.assertEqual(groups["g"]["mode"], "flush")
        self.assertEqual(groups["g"]["checkpoint"]["lsn"], self.checkpoint)
        self.assertEqual([v["name"] for v in groups["g"]["volumes"]], ["v", "w"])
        log = self.look("log", "--group", "g")
        head = self.group["head"]
        self.assertEqual((log["head"]["lsn"], log["head"]["digest"]), (head["lsn"], head["digest"]))
        self.assertEqual(log["problems"], [])
        self.assertEqual([r["lsn"] for r in log["records"]], list(range(1, head["lsn"] + 1)))
        kinds = [r["type"] for r in log["records"]]
        self.assertEqual(kinds[:2], ["volume-create"] * 2)
        self.assertEqual(kinds[-3:], ["discard", "zero", "write"])
        self.assertEqual([r["behind_checkpoint"] for r in log["records"]],
                         [r["lsn"] > self.checkpoint for r in log["records"]])
        last = self.look("log", "--group", "g", "--from", str(head["lsn"]))["records"]
        self.assertEqual([(r["lsn"], r["block"], r["count"]) for r in last], [(head["lsn"], 5, 1)])
        self.assertEqual(len(self.look("log", "--group", "g", "--limit", "2")["records"]), 2)

    def test_map_and_block(self):
        runs = self.look("map", "--group", "g", "--volume", "v")["runs"]
        covered = {}
        for run in runs:
            for i in range(run["count"]):
                covered[run["block"] + i] = run["kind"]
        self.assertEqual({b for b, kind in covered.items() if kind == "data"},
                         set(range(256)) - {8, 9})
        self.assertEqual(covered[9], "zeroes")
        self.assertNotIn(8, covered)
        block = self.look("block", "--group", "g", "--volume", "v", "--block", "5")
        self.assertEqual(block["at_checkpoint"]["content"], "whole")
        self.assertEqual([(c["lsn"], c["content"]) for c in block["changes_behind"]],
                         [(self.group["head"]["lsn"], "whole")])
        # The content is where it says: the old one, and the one behind the checkpoint.
        with open(self.a.pool, "rb") as pool:
            for place, byte in ((block["at_checkpoint"], b"1"), (block["changes_behind"][0], b"2")):
                pool.seek(place["where"] * BLOCK)
                self.assertEqual(pool.read(BLOCK), byte * BLOCK)

    def test_verify_and_its_balance(self):
        report = self.look("verify")
        self.assertEqual((report["sound"], report["problems"]), (True, 0))
        balance = next(g for g in report["groups"] if g["name"] == "g")
        self.assertEqual(balance["blocks"]["data"], 254)
        self.assertEqual(balance["records_behind"], self.group["head"]["lsn"] - self.checkpoint)
        self.assertEqual([g["name"] for g in self.look("verify", "--group", "g")["groups"]], ["g"])
        self.assertIn("sound", self.inspect("verify", "--no-data").stdout)

    def test_damage(self):
        where = self.look("block", "--group", "g", "--volume", "v", "--block", "7")
        harness.corrupt(self.a.pool, where["at_checkpoint"]["where"] * BLOCK + 9)
        report = self.look("verify", code=PROBLEMS)
        self.assertFalse(report["sound"])
        self.assertEqual([(f["severity"], f["part"]) for f in report["findings"]],
                         [("problem", "data")])
        self.assertIn("block 7", report["findings"][0]["place"])
        self.assertIn("1 problems", self.inspect("verify", code=PROBLEMS).stdout)
        self.inspect("verify", "--no-data")  # it was told not to look
        self.inspect("verify", "--group", "other")
        block = self.look("block", "--group", "g", "--volume", "v", "--block", "7")
        self.assertEqual(block["at_checkpoint"]["content"], "fails its checksum")
        harness.corrupt(self.a.pool, 100)
        self.assertEqual(self.look("superblock")["copies"],
                         ["Tandem superblock fails its checksum", "whole, counts"])
        harness.corrupt(self.a.pool, BLOCK + 100)
        for command in COMMANDS:
            self.assertIn("superblock", self.inspect(*command, code=UNUSABLE).stderr)

    def test_wrong_use(self):
        for arguments, word in (((), "subcommand"), (("nonsense",), "subcommand"),
                                (("log",), "--group"), (("log", "--group", "nobody"), "nobody"),
                                (("map", "--group", "g"), "--volume"),
                                (("map", "--group", "g", "--volume", "x"), "no volume x"),
                                (("block", "--group", "g", "--volume", "v"), "--block"),
                                (("block", "--group", "g", "--volume", "v", "--block", "16384"),
                                 "only 16384 blocks")):
            with self.subTest(arguments):
                result = self.inspect(*arguments, code=UNUSABLE)
                self.assertIn(word, result.stdout + result.stderr)
                self.assertTrue(result.stderr)
        missing = harness.run(harness.BIN / "tandem-inspect", self.directory / "none", "verify",
                              check=False)
        self.assertEqual(missing.returncode, UNUSABLE)
        self.assertIn("No such file", missing.stderr)
        self.inspect("--help")
        self.assertIn("tandem-inspect", self.inspect("--version").stdout)

    def test_a_pool_in_use_only_by_force(self):
        self.a.start()
        command = (harness.BIN / "tandem-inspect", self.a.pool, "superblock")
        refused = harness.run(*command, check=False)
        self.assertEqual(refused.returncode, UNUSABLE)
        self.assertIn("stop the daemon first", refused.stderr)
        forced = harness.run(*command, "--force", "--json")
        self.assertIn("read while it changed", forced.stderr)
        self.assertEqual(json.loads(forced.stdout)["pool"], self.status["pool"]["id"])
        # Nor does a look keep the daemon from its pool.
        self.assertEqual(self.a.stop(), 0)


if __name__ == "__main__":
    harness.main()
