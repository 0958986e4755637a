"""tandemd as a process: what it refuses, how it starts and ends."""

import os
import signal
import socket

import harness

CONFIG_REFUSED = 2
START_REFUSED = 3


def tandemd(*arguments):
    return harness.run(harness.BIN / "tandemd", *arguments, check=False)


class CommandLine(harness.ClusterTest):
    def test_help_and_version(self):
        shown = tandemd("--help")
        self.assertEqual(shown.returncode, 0)
        for option in ("--config", "--check", "--create-pool", "--log-level"):
            self.assertIn(option, shown.stdout)
        self.assertRegex(tandemd("--version").stdout, r"tandemd \d+\.\d+\.\d+")

    def test_a_missing_or_unknown_argument_is_refused(self):
        self.assertEqual(tandemd().returncode, CONFIG_REFUSED)
        self.assertEqual(tandemd("--nonsense").returncode, CONFIG_REFUSED)

    def test_a_bad_configuration_is_refused_with_place_and_cure(self):
        node = self.node(tls=False)
        node.tables["pool"]["size"] = "10GB"
        node.tables["nbd"]["lisen"] = ["unix:/x"]
        node.write_config()
        refused = tandemd("--config", node.config_path, "--check")
        self.assertEqual(refused.returncode, CONFIG_REFUSED)
        self.assertRegex(refused.stderr, rf"{node.config_path}:\d+:\d+: pool.size: .*\"10GiB\"")
        self.assertRegex(refused.stderr, r"nbd\.lisen: .*did you mean nbd\.listen\?")

    def test_check_touches_nothing(self):
        node = self.node()
        checked = tandemd("--config", node.config_path, "--check")
        self.assertEqual(checked.returncode, 0, checked.stderr)
        self.assertFalse(node.pool.exists())

    def test_a_missing_certificate_is_refused_by_name(self):
        node = self.node()
        os.unlink(node.certificates / "node-a.crt")
        for arguments in (["--check"], []):
            refused = tandemd("--config", node.config_path, *arguments)
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("node-a.crt", refused.stderr)


class Pool(harness.ClusterTest):
    def test_without_a_pool_it_says_how_to_make_one(self):
        node = self.node(tls=False, config={"pool": {"create": False}})
        refused = tandemd("--config", node.config_path)
        self.assertEqual(refused.returncode, START_REFUSED)
        self.assertIn("--create-pool", refused.stderr)

    def test_create_pool_makes_it_once_and_keeps_it(self):
        node = self.node(tls=False, config={"pool": {"create": False}})
        node.start("--create-pool")
        node.tandem("volume", "create", "v", "--size", "16MiB")
        identity = node.status()["pool"]["id"]
        self.assertEqual(node.stop(), 0)
        node.start("--create-pool")
        self.assertEqual(node.status()["pool"]["id"], identity)
        self.assertEqual([g["name"] for g in node.status()["groups"]], ["v"])

    def test_what_is_not_empty_is_never_overwritten(self):
        node = self.node(tls=False)
        node.pool.write_bytes(b"precious" * 100000)
        refused = tandemd("--config", node.config_path, "--create-pool")
        self.assertEqual(refused.returncode, START_REFUSED)
        self.assertEqual(node.pool.read_bytes(), b"precious" * 100000)

    def test_a_second_daemon_on_the_same_pool_is_refused(self):
        first = self.node("node-a", tls=False).start()
        second = self.node("node-b", tls=False, config={"pool": {"path": str(first.pool)}})
        refused = tandemd("--config", second.config_path)
        self.assertEqual(refused.returncode, START_REFUSED)
        self.assertIn(f"pid {first.process.pid}", refused.stderr)
        self.assertIn("in use by another daemon", refused.stderr)
        self.assertTrue(first.status())

    def test_an_address_in_use_is_refused(self):
        first = self.node("node-a", tls=False).start()
        for table in ("service", "nbd"):
            second = self.node(f"other-{table}", tls=False)
            value = first.service if table == "service" else [first.nbd_tcp]
            second.tables[table]["listen"] = value
            second.write_config()
            refused = tandemd("--config", second.config_path)
            self.assertEqual(refused.returncode, START_REFUSED, refused.stderr)
            self.assertIn(first.service if table == "service" else first.nbd_tcp, refused.stderr)


class Life(harness.ClusterTest):
    @harness.needs_nbd
    def test_data_survives_sigterm_and_sigkill(self):
        node = self.node().start()
        node.tandem("volume", "create", "v", "--size", "32MiB")
        with node.nbd("v") as disk:
            disk.pwrite(b"a" * 8192, 4096)
            disk.flush()
        self.assertEqual(node.stop(), 0)
        node.start()
        with node.nbd("v") as disk:
            self.assertEqual(bytes(disk.pread(8192, 4096)), b"a" * 8192)
            disk.pwrite(b"b" * 4096, 1 << 20)  # acknowledged, not flushed
            node.kill()
        node.start()
        with node.nbd("v", tcp=True) as disk:
            self.assertEqual(bytes(disk.pread(4096, 1 << 20)), b"b" * 4096)
            self.assertEqual(bytes(disk.pread(8192, 4096)), b"a" * 8192)

    def test_sigint_ends_it_cleanly_too(self):
        node = self.node(tls=False).start()
        node.process.send_signal(signal.SIGINT)
        self.assertEqual(node.wait_exit(), 0)

    @harness.needs_nbd
    def test_sigterm_ends_it_while_a_client_is_connected(self):
        node = self.node(tls=False).start()
        node.tandem("volume", "create", "v", "--size", "16MiB")
        with node.nbd("v") as disk:
            disk.pwrite(b"c" * 4096, 0)
            self.assertEqual(node.stop(), 0)

    def test_it_tells_systemd_when_it_is_ready_and_when_it_stops(self):
        path = str(self.directory / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(path)
            listener.settimeout(harness.PATIENCE)
            node = self.node(tls=False)
            node.start(env={"NOTIFY_SOCKET": path})
            told = ""
            while "READY=1" not in told:
                told += listener.recv(4096).decode() + "\n"
            node.stop()
            while "STOPPING=1" not in told:
                told += listener.recv(4096).decode() + "\n"
            self.assertIn("STATUS=", told)

    def test_a_log_line_tells_each_transition(self):
        node = self.node(tls=False).start()
        node.stop()
        log = node.log(1000)
        for event in ("node.start", "node.ready", "node.stop", "node.stopped"):
            self.assertRegex(log, rf"event={event}\b")


if __name__ == "__main__":
    harness.main()
