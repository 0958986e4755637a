"""A pair whose nodes are killed at the steps of what they do.

The link between them is slow, so that every step that takes a word from the other node lasts; a step is
reached when the log or the status says so. Whatever dies then: what was acknowledged is there where the
group is served next, as the ledger and fio judge it, and both copies become equal again.
"""

import harness
from network_support import LoadedPair

DELAY = 0.2


class Steps(LoadedPair):
    timeout = "3s"
    fio_megabytes = 4

    def setUp(self):
        super().setUp()
        self.start()
        self.primary, self.mirror = self.a, self.b
        self.rounds = 0

    def begin(self):
        """Other blocks than before, acknowledged by both, and more on their way."""
        self.rounds += 1
        self.fio.seed = self.rounds
        self.fio.write(self.primary)
        self.link.delay(DELAY)
        self.ledger.begin(self.primary, "ledger")
        self.ledger.wait_for(20)
        self.marks = {node: node.log_size() for node in (self.a, self.b)}

    def reach(self, node, line):
        node.wait_logged(line, self.marks[node])

    def logged(self, node, line):
        return line in node.log_since(self.marks[node])

    def check(self, node):
        harness.wait_until(lambda: node.serves("ledger"), f"{node.name} to serve")
        self.assertIn(" 0 wrong", self.ledger.check(node, "ledger"))
        self.fio.verify(node)

    def follow(self, primary, mirror):
        """They are a pair again, equal, with these roles."""
        self.link.delay(0)
        if not mirror.is_running():
            mirror.start()
        if primary.slot("g") is None:
            primary.tandem("mirror", "add", "g", mirror.service, "--mode", "sync")
        self.assert_equal(primary, mirror)
        self.assertEqual(mirror.group("g")["role"], "mirror")
        self.assertFalse(mirror.serves("ledger"))
        self.primary, self.mirror = primary, mirror
