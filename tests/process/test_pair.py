"""`tandem pair`: two nodes that know nothing of each other come to trust each other."""

import json
import os
import re
import signal
import stat
import subprocess

import harness


class Starter:
    """`tandem pair start` in the background, up to the line with the token."""

    def __init__(self, test, name, directory, *extra):
        self.process = subprocess.Popen(
            [str(harness.BIN / "tandem"), "pair", "start", "--name", name, "--address",
             "127.0.0.1", "--listen", "127.0.0.1:0", "--directory", str(directory),
             *map(str, extra)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=harness.die_with_parent)
        test.addCleanup(self.end)
        self.output = ""
        for line in self.process.stdout:
            self.output += line
            found = re.search(r"tandem pair join (\S+) (\S+) ", line)
            if found:
                self.address, self.token = found.groups()
                return
        raise AssertionError("no token was shown:\n" + self.output)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.stdout.close()
        self.process.wait(harness.PATIENCE)

    def finish(self):
        self.output += self.process.stdout.read()
        return self.process.wait(harness.PATIENCE)


def join(address, token, name, directory, *extra, check=True):
    return harness.run(harness.BIN / "tandem", "pair", "join", address, token, "--name", name,
                       "--address", "127.0.0.1", "--directory", directory, *extra, check=check)


class Pairing(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.a_keys = self.directory / "keys-a"
        self.b_keys = self.directory / "keys-b"

    def test_two_nodes_pair_and_replicate(self):
        a = self.node("node-a", tls=False)
        b = self.node("node-b", tls=False)
        for node in (a, b):
            node.tables["service"]["tls"] = True
            # What was there before is replaced, and nothing else in the file changes.
            node.tables["service"]["certificate"] = "/nowhere"
            node.write_config()
        starter = Starter(self, "node-a", self.a_keys, "--config", a.config_path)
        joined = join(starter.address, starter.token, "node-b", self.b_keys, "--config",
                      b.config_path)
        self.assertEqual(starter.finish(), 0, starter.output)
        self.assertIn("Node node-b joined", starter.output)
        shown = re.findall(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", joined.stdout)
        self.assertEqual(len(shown), 2)
        for fingerprint in shown:
            self.assertIn(fingerprint, starter.output, "both nodes show the same")
        of_openssl = harness.run("openssl", "x509", "-in", self.b_keys / "ca.crt", "-noout",
                                 "-fingerprint", "-sha256").stdout
        self.assertIn(shown[0], of_openssl)
        for name, unit in (("operator", True), ("viewer", True), ("node-a", False)):
            told = harness.run("openssl", "x509", "-in", self.a_keys / f"{name}.crt", "-noout",
                               "-subject").stdout
            self.assertEqual(f"tandem-{name}" in told, unit, told)
        self.assertFalse((self.b_keys / "ca.key").exists(), "the authority stays on one node")
        for path in (self.a_keys / "ca.key", self.a_keys / "node-a.key",
                     self.a_keys / "operator.key", self.b_keys / "node-b.key"):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600, path)
        text = b.config_path.read_text()
        self.assertEqual(text.count("certificate ="), 1, text)
        self.assertIn(f'certificate = "{self.b_keys}/node-b.crt"', text)
        self.assertIn(f'listen = "{b.service}"', text)

        a.certificates = self.a_keys
        b.credentials = a.credentials
        a.start()
        b.start()
        self.replicated_volume(a, b, "v", mode="sync")
        viewer = ["--node", a.service, "--ca", self.a_keys / "ca.crt", "--certificate",
                  self.a_keys / "viewer.crt", "--key", self.a_keys / "viewer.key"]
        harness.run(harness.BIN / "tandem", *viewer, "status")
        with a.nbd("v") as disk:
            disk.pwrite(b"x" * 4096, 0)
        told = json.loads(harness.run(harness.BIN / "tandem", *viewer, "--json", "latency",
                                      "v").stdout)["latencies"]
        stages = {(one["node"], stage["operation"], stage["stage"]): stage["count"]
                  for one in told for stage in one["stages"]}
        self.assertGreater(stages["node-a", "write", "whole"], 0)
        self.assertEqual(stages["node-a", "write", "device"], stages["node-a", "write", "whole"])
        refused = harness.run(harness.BIN / "tandem", *viewer, "volume", "create", "w", "--size",
                              "1MiB", check=False)
        self.assertEqual(refused.returncode, 4, refused.stderr)
        self.assertIn("may only look", refused.stderr)

    def test_a_token_is_for_one_node_and_one_time(self):
        starter = Starter(self, "node-a", self.a_keys)
        mistyped = ("b" if starter.token[3] != "b" else "c").join(
            (starter.token[:3], starter.token[4:]))
        wrong = join(starter.address, mistyped, "node-b", self.b_keys, check=False)
        self.assertEqual(wrong.returncode, 2)
        self.assertIn("mistyped", wrong.stderr)
        # Somebody else answers at the address: nothing is sent to them.
        stranger = Starter(self, "node-x", self.directory / "keys-x")
        caught = join(stranger.address, starter.token, "node-b", self.b_keys, check=False)
        self.assertEqual(caught.returncode, 4)
        self.assertIn("another certificate", caught.stderr)
        self.assertFalse(self.b_keys.exists())
        self.assertIsNone(stranger.process.poll(), "the stranger learned nothing and waits on")
        taken = join(starter.address, starter.token, "node-a", self.b_keys, check=False)
        self.assertEqual(taken.returncode, 4)
        self.assertIn("is taken", taken.stderr)
        join(starter.address, starter.token, "node-b", self.b_keys)
        self.assertEqual(starter.finish(), 0)
        again = join(starter.address, starter.token, "node-c", self.b_keys, check=False)
        self.assertEqual(again.returncode, 3, again.stderr)
        # A third node gets a token of its own, from the same authority.
        authority = (self.a_keys / "ca.crt").read_text()
        third = Starter(self, "node-a", self.a_keys)
        self.assertNotEqual(third.token, starter.token)
        join(third.address, third.token, "node-c", self.directory / "keys-c")
        self.assertEqual((self.directory / "keys-c" / "ca.crt").read_text(), authority)

    def test_a_token_ends(self):
        starter = Starter(self, "node-a", self.a_keys, "--timeout", "1s")
        self.assertEqual(starter.finish(), 1, starter.output)
        self.assertIn("nobody joined in time", starter.output)


class Certificates(harness.ClusterTest):
    def test_replaced_certificates_are_used_after_a_hangup(self):
        """A daemon whose own certificate is about to expire gets another, and goes on."""
        a, b = self.start_pair()
        self.replicated_volume(a, b, "v", mode="sync")
        directory = self.certificates()
        before = (directory / "node-b.crt").read_text()
        for name in ("node-a", "node-b"):
            (directory / f"{name}.san").unlink()  # so that they are made anew
        harness.run(harness.REPOSITORY / "deploy" / "certificates", directory,
                    "node-a:127.0.0.1,localhost", "node-b:127.0.0.1,localhost")
        self.assertNotEqual((directory / "node-b.crt").read_text(), before)
        pid = b.process.pid
        for node in (a, b):
            node.process.send_signal(signal.SIGHUP)
        wanted = harness.run("openssl", "x509", "-in", directory / "node-b.crt", "-noout",
                             "-serial").stdout.strip()

        def shows_new_one():
            host, port = b.service.rsplit(":", 1)
            client = subprocess.run(
                ["openssl", "s_client", "-connect", f"{host}:{port}", "-alpn", "h2"],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=harness.PATIENCE)
            shown = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=client.stdout,
                                   capture_output=True, timeout=harness.PATIENCE)
            return shown.stdout.decode().strip() == wanted

        self.wait_until(shows_new_one, "node-b to show its new certificate", interval=0.5)
        self.assertEqual(b.process.pid, pid)
        self.assertTrue(b.is_running())
        self.assertEqual(a.slot("v")["state"], "following")
        a.tandem("volume", "create", "w", "--size", "8MiB", "--group", "v")


if __name__ == "__main__":
    harness.main()
