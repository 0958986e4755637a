"""What the tests of backups share: a pair with volume "v" of group "g", and a directory for its backup."""

import harness
from harness import MIB

FAILED, USAGE, UNREACHABLE, REFUSED, NOT_FOUND = 1, 2, 3, 4, 5


class BackupTest(harness.ClusterTest):
    size = "64MiB"

    def setUp(self):
        super().setUp()
        self.a, self.b = self.start_pair()
        self.replicated_volume(self.a, self.b, size=self.size, group="g")
        self.wait_in_sync(self.a, "g")
        self.backup = self.directory / "backup"

    def both(self, *arguments, **options):
        """The command with both nodes named, as an operator's environment does it."""
        return self.a.tandem("--node", self.b.service, *arguments, **options)

    def create(self, *arguments, **options):
        return self.both("backup", "create", "g", self.backup, *arguments, json_output=True,
                         **options)

    def fill(self, random, places):
        """Random bytes, which compression cannot shrink, at [(offset, length)]."""
        with self.a.nbd("v") as disk:
            for offset, length in places:
                for at in range(offset, offset + length, 4 * MIB):
                    piece = min(4 * MIB, offset + length - at)
                    disk.pwrite(random.randbytes(piece), at)

    def snapshots(self, node):
        return [s["name"] for s in node.group("g")["snapshots"]]

    def restored(self, point, *arguments, volume=()):
        image = self.directory / f"point-{point}.img"
        self.a.tandem("restore", self.backup, "--point", str(point), *volume, "--to-file", image,
                      *arguments)
        return image.read_bytes()

    def fails(self, code, words, *arguments):
        result = self.both(*arguments, check=False)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.assertIn(words, result.stderr)
        return result
