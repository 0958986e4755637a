"""Runs real tandemd processes on loopback for the tests in this folder.

    class MyTest(harness.ClusterTest):
        def test_it(self):
            a, b = self.start_pair()                 # certificates, configurations, pools, TLS
            a.tandem("volume", "create", "v", "--size", "64MiB")
            a.tandem("mirror", "add", "v", b.service, "--mode", "sync")
            self.wait_until(lambda: a.slot("v")["in_sync"], "the mirror to be in sync")
            with a.nbd("v") as disk:
                disk.pwrite(b"x" * 4096, 0)
            a.kill()                                  # SIGKILL
            b.tandem("promote", "v", "--yes")

    if __name__ == "__main__":
        harness.main()

Every process is ended by its pid at the end of a test, and dies with the test if that is killed.
When a test fails, the last lines of each node's log are printed. Every wait has a time-out; nothing
asserts on how long something took. Files whose prerequisites are missing exit with 77 (skipped).
"""

import contextlib
import ctypes
import fcntl
import functools
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

try:
    import nbd  # python3-libnbd
except ImportError:
    nbd = None

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
LEDGER = REPOSITORY / "deploy" / "ledger.py"
BIN = pathlib.Path(os.environ.get("TANDEM_BIN", REPOSITORY / "build" / "dev" / "bin"))
SKIPPED = 77
NOT_FOUND = 5
MIB = 1 << 20
# Sanitizer builds and busy machines are slow; a time-out only ends what would hang for ever.
PATIENCE = float(os.environ.get("TANDEM_TEST_PATIENCE", "60"))

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Timeout(AssertionError):
    pass


class CommandFailed(AssertionError):
    def __init__(self, command, result):
        super().__init__(f"{' '.join(map(str, command))}: exit {result.returncode}\n"
                         f"{result.stdout}{result.stderr}")
        self.result = result


def run(*command, check=True, timeout=PATIENCE, **options):
    """Runs a command to its end; text output; bounded."""
    options.setdefault("stdin", subprocess.DEVNULL)
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True,
                            timeout=timeout, **options)
    if check and result.returncode != 0:
        raise CommandFailed(command, result)
    return result


def wait_until(condition, what, timeout=PATIENCE, interval=0.05):
    """Waits until condition() is true; errors of commands and connections count as "not yet"."""
    end = time.monotonic() + timeout
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
        except (CommandFailed, OSError, KeyError, IndexError, TypeError, ValueError) as error:
            last = error
        except Exception as error:  # nbd.Error has no common base to name when libnbd is missing
            if nbd is None or not isinstance(error, nbd.Error):
                raise
            last = error
        if time.monotonic() > end:
            raise Timeout(f"waited {timeout:.0f} s in vain for {what}" +
                          (f"; last error: {last}" if last else ""))
        time.sleep(interval)


def chance(what):
    """A random.Random whose seed is printed; TANDEM_SEED repeats the choices, not the timing."""
    seed = int(os.environ.get("TANDEM_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"{what}: TANDEM_SEED={seed}", file=sys.stderr, flush=True)
    return random.Random(seed)


def pools_are_free(*paths):
    """Whether no process holds these pools any more: a killed one does until its I/O is over."""
    for path in paths:
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


def inspect(pool, *arguments, check=True):
    """Runs tandem-inspect on a pool whose daemon has ended."""
    wait_until(lambda: pools_are_free(pool), f"{pool} to be let go")
    return run(BIN / "tandem-inspect", pool, *arguments, check=check)


@functools.cache
def sanitized():
    """Whether the daemon is built with a sanitizer: its memory says nothing then."""
    return b"libasan" in (BIN / "tandemd").read_bytes()


_claims = []  # sockets that hold the names of ports handed out


def free_port(host="127.0.0.1"):
    """A TCP port that nobody listens on, kept for this process until it ends.

    Below the range from which the kernel takes the ports of connections: there, a connection of
    another test could take a node's port while the node is killed and not yet started again.
    """
    above = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(10000, above), above - 10000):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0tandem-test-port-{port}")  # to keep other tests off it
            with socket.socket() as probe:
                probe.bind((host, port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port
    raise AssertionError(f"no free port on {host}")


def toml(tables):
    """A TOML text of {table: {key: value}}, or {table: [{key: value}, …]} for [[table]]s."""
    lines = []
    for table, content in tables.items():
        is_list = isinstance(content, list)
        for entries in content if is_list else [content]:
            lines.append(f"[[{table}]]" if is_list else f"[{table}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in entries.items()]
    return "\n".join(lines) + "\n"


class Node:
    """One tandemd with its directory: pool, configuration, log."""

    def __init__(self, directory, name, certificates=None, host="127.0.0.1", pool_size="512MiB",
                 config=None, within=()):
        """within: a command in front of the node's and its operator's, which gives it a network."""
        self.name = name
        self.host = host
        self.within = within
        self.directory = pathlib.Path(directory) / name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.certificates = certificates
        self.service = f"{host}:{7788 if within else free_port(host)}"
        self.nbd_tcp = f"{host}:{10809 if within else free_port(host)}"
        self.socket = self.directory / "nbd.sock"
        self.pool = self.directory / "pool"
        self.config_path = self.directory / "tandem.toml"
        self.log_path = self.directory / "log"
        self.process = None
        self.tables = {
            "node": {"name": name},
            "pool": {"path": "pool", "create": True, "size": pool_size, "zone_size": "4MiB"},
            "memory": {"map_cache": "8MiB", "buffers": "32MiB"},
            "nbd": {"listen": [f"unix:{self.socket}", self.nbd_tcp]},
            "service": {"listen": self.service, "tls": certificates is not None},
            "replication": {"peer_wait": "1s", "heartbeat": "100ms", "timeout": "1s"},
            "log": {"level": "debug"},
        }
        if certificates is not None:
            self.tables["service"].update(certificate=str(certificates / f"{name}.crt"),
                                          key=str(certificates / f"{name}.key"),
                                          ca=str(certificates / "ca.crt"))
        for table, entries in (config or {}).items():
            self.tables.setdefault(table, {}).update(entries)
        self.write_config()

    # --- the process ---------------------------------------------------------------------------

    def write_config(self):
        self.config_path.write_text(toml(self.tables))

    def spawn(self, *extra, env=None):
        """Starts the daemon and returns at once."""
        assert self.process is None or self.process.poll() is not None, f"{self.name} runs already"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.within, str(BIN / "tandemd"), "--config", str(self.config_path), *extra],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
                env={**os.environ, **(env or {})})
        return self

    def start(self, *extra, timeout=PATIENCE, env=None):
        """Starts the daemon and waits until its service answers."""
        self.spawn(*extra, env=env)
        wait_until(self._answers_or_dead, f"{self.name} to answer", timeout)
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.log()}")
        return self

    def _answers_or_dead(self):
        return self.process.poll() is not None or self.tandem("status", json_output=True)

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """SIGKILL: memory is lost, the page cache and the disk stay."""
        if self.is_running():
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(PATIENCE)

    def stop(self, timeout=PATIENCE):
        """SIGTERM; returns the exit code."""
        if self.process is None:
            return None
        if self.is_running():
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def wait_exit(self, timeout=PATIENCE):
        return self.process.wait(timeout)

    def alive_for(self, seconds):
        """Lets it run for so long; fails when it ends by itself."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise AssertionError(f"{self.name} ended by itself with {code}:\n{self.log()}")

    def restart(self, *extra):
        self.stop()
        return self.start(*extra)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def log(self, lines=30):
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def wait_logged(self, text, since=0):
        """Waits, and looks often, until its log says so behind `since` (of log_size())."""
        wait_until(lambda: text in self.log_since(since), f"{self.name} to log {text}",
                   interval=0.001)

    def log_size(self):
        return self.log_path.stat().st_size

    def log_since(self, size):
        """What it logged since its log had so many bytes."""
        with open(self.log_path, "rb") as file:
            file.seek(size)
            return file.read().decode(errors="replace")

    # --- the operator's command ----------------------------------------------------------------

    def credentials(self):
        if self.certificates is None:
            return ["--insecure"]
        return ["--ca", self.certificates / "ca.crt", "--certificate",
                self.certificates / "operator.crt", "--key", self.certificates / "operator.key"]

    def command(self, *arguments):
        """What runs `tandem` for this node."""
        return [str(word) for word in (*self.within, BIN / "tandem", "--node", self.service,
                                       *self.credentials(), *arguments)]

    def spawn_tandem(self, *arguments):
        """Runs `tandem` in the background."""
        return subprocess.Popen(self.command(*arguments), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                preexec_fn=die_with_parent)

    def tandem(self, *arguments, json_output=False, check=True, timeout=PATIENCE):
        """Runs `tandem`. json_output: returns what it printed, parsed; else the finished process."""
        command = self.command(*(["--json"] if json_output else []))
        result = run(*command, *arguments, check=check, timeout=timeout)
        return json.loads(result.stdout) if json_output and check else result

    def status(self):
        """This node's status as a dictionary (the one with "groups")."""
        return find(self.tandem("status", json_output=True),
                    lambda d: "groups" in d and "pool" in d)

    def group(self, name):
        """Its own view of a group, or None; unlike status() this waits for no other node."""
        shown = self.tandem("group", "show", name, "--json", check=False)
        if shown.returncode == NOT_FOUND:
            return None
        if shown.returncode != 0:
            raise CommandFailed(["group", "show", name], shown)
        return json.loads(shown.stdout)["groups"][0]

    def slot(self, group, address=None):
        """The (only) mirror of a group, as its primary knows it."""
        for slot in self.group(group)["slots"]:
            if address is None or slot["address"] == address:
                return slot
        return None

    def wait_refused(self, group, address=None):
        """Until a mirror refuses this node; returns the slot as it then was: it dials again."""
        def refused():
            slot = self.slot(group, address)
            return slot if slot["state"] == "refused" else None
        return wait_until(refused, f"{self.name} to be refused by its mirror of {group}")

    # --- NBD -----------------------------------------------------------------------------------

    def uri(self, volume, tcp=False):
        return f"nbd://{self.nbd_tcp}/{volume}" if tcp else \
            f"nbd+unix:///{volume}?socket={self.socket}"

    @contextlib.contextmanager
    def nbd(self, volume, tcp=False):
        """A libnbd handle connected to the export."""
        handle = nbd.NBD()
        handle.set_request_structured_replies(True)
        handle.add_meta_context("base:allocation")
        handle.connect_uri(self.uri(volume, tcp))
        try:
            yield handle
        finally:
            with contextlib.suppress(nbd.Error):
                handle.shutdown()

    def serves(self, volume):
        try:
            with self.nbd(volume):
                return True
        except nbd.Error:
            return False

    def read_all(self, volume, piece=4 * MIB):
        with self.nbd(volume) as disk:
            size = disk.get_size()
            return b"".join(bytes(disk.pread(min(piece, size - at), at))
                            for at in range(0, size, piece))


def find(value, matches):
    """The first dictionary inside `value` for which matches() is true, else None."""
    if isinstance(value, dict):
        if matches(value):
            return value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            found = find(item, matches)
            if found is not None:
                return found
    return None


class Ledger:
    """deploy/ledger.py as a background writer and as the judge of what was acknowledged."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory) / "ledger"
        self.process = None

    def begin(self, node, volume, in_flight=16, per_second=0, others=()):
        """With `others` the writer looks for the volume there, too, when its connection ends."""
        reconnect = [word for other in others for word in ("--or", other.uri(volume))]
        self.process = subprocess.Popen(
            ["/usr/bin/python3", str(LEDGER), "write", node.uri(volume), str(self.path),
             "--in-flight", str(in_flight), "--per-second", str(per_second), *reconnect],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=die_with_parent)

    def acknowledged(self):
        if not self.path.exists():
            return 0
        return self.path.read_text().count("a ")

    def wait_for(self, writes):
        goal = self.acknowledged() + writes
        wait_until(lambda: self.acknowledged() >= goal, f"{writes} acknowledged writes")

    def end(self):
        """The server is gone: how the writer ended."""
        output, _ = self.process.communicate(timeout=PATIENCE)
        return output

    def stop(self):
        """Ends the writer once all that it asked is answered; returns how it ended."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def check(self, node, volume):
        """What the judge says; fails unless everything acknowledged is there."""
        return run("/usr/bin/python3", LEDGER, "check", node.uri(volume), self.path).stdout


class Mounted:
    """An export as a mounted filesystem: nbdfuse, a loop device, mount.

        with harness.Mounted(node, "v", directory, mkfs="ext4") as mount:
            (mount.path / "file").write_text("x")

    Leaving it unmounts; after the server has died use abandon(), which gets rid of everything.
    """

    def __init__(self, node, volume, directory, mkfs=None, options=(), source=None):
        self.source = source or [node.uri(volume)]  # for nbdfuse
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="mount-", dir=directory))
        self.fuse = self.base / "fuse"
        self.path = self.base / "fs"
        self.fuse.mkdir()
        self.path.mkdir()
        self.mkfs = mkfs
        self.options = options
        self.server = None
        self.loop = None

    def attach(self):
        """The export as a loop device, without mounting."""
        self.loop = run("losetup", "--find", "--show", self.attach_file()).stdout.strip()
        return self

    def attach_file(self):
        """The export as a file."""
        self.server = subprocess.Popen(["nbdfuse", str(self.fuse / "volume"), *self.source],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
        wait_until((self.fuse / "volume").exists, "nbdfuse to show the volume")
        return self.fuse / "volume"

    def __enter__(self):
        try:
            self.attach()
            if self.mkfs == "ext4":
                run("mkfs.ext4", "-q", "-F", self.loop)
            elif self.mkfs == "xfs":
                run("mkfs.xfs", "-q", "-f", self.loop)
            run("mount", *self.options, self.loop, self.path)
        except BaseException:
            self.abandon()
            raise
        return self

    def __exit__(self, *exception):
        if exception[0] is not None:
            self.abandon()
            return
        # What was killed may take a moment to let go of its files.
        wait_until(lambda: run("umount", self.path, check=False).returncode == 0,
                   f"{self.path} to be unmounted")
        self.detach()

    def detach(self):
        if self.loop:
            run("losetup", "--detach", self.loop)
            self.loop = None
        run("umount", self.fuse, check=False)
        self._end_server()

    def abandon(self):
        """Gets rid of everything although the server is dead; never raises."""
        for command in (["umount", "--lazy", self.path],
                        ["losetup", "--detach", self.loop] if self.loop else None,
                        ["umount", "--lazy", self.fuse]):
            if command is None:
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                run(*command, check=False, timeout=20)
        self.loop = None
        self._end_server()

    def _end_server(self):
        if self.server is None:
            return
        try:
            self.server.wait(5)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait(PATIENCE)
        self.server = None


def mounting_works():
    """Root, FUSE and loop devices: what Mounted needs."""
    return (os.geteuid() == 0 and os.path.exists("/dev/fuse") and
            os.path.exists("/dev/loop-control") and shutil.which("nbdfuse") is not None)


needs_mounts = unittest.skipUnless(mounting_works(), "needs root, /dev/fuse, loop devices, nbdfuse")
needs_nbd = unittest.skipUnless(nbd is not None, "needs python3-libnbd")


def needs_program(*names):
    missing = [name for name in names if shutil.which(name) is None]
    return unittest.skipIf(missing, f"needs {', '.join(missing)}")


class ClusterTest(unittest.TestCase):
    """A temporary directory, certificates, and nodes that end with the test."""

    hosts = dict.fromkeys(("node-a", "node-b", "node-c"), "127.0.0.1")

    def setUp(self):
        # Short, because the path of a Unix socket may have 107 bytes only.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="tandem-"))
        self.nodes = []
        self.mounts = []
        self.addCleanup(self._clean_up)

    def _clean_up(self):
        result = self._outcome.result
        failed = any(test is self for test, _ in result.failures + result.errors)
        for mount in self.mounts:
            mount.abandon()
        for node in self.nodes:
            if node.is_running():
                node.resume()
                node.kill()
            if failed:
                print(f"--- the end of {node.name}'s log:\n{node.log()}", file=sys.stderr)
        shutil.rmtree(self.directory, ignore_errors=True)

    wait_until = staticmethod(wait_until)

    def certificates(self):
        directory = self.directory / "certificates"
        if not directory.exists():
            run(REPOSITORY / "deploy" / "certificates", directory,
                *(f"{name}:{host},localhost" for name, host in self.hosts.items()))
        return directory

    def node(self, name="node-a", tls=True, **options):
        """A node of its own directory, not started."""
        node = Node(self.directory, name, self.certificates() if tls else None, **options)
        self.nodes.append(node)
        return node

    def start_pair(self, **options):
        pair = [self.node(name, **options).start() for name in ("node-a", "node-b")]
        return pair[0], pair[1]

    def replicated_volume(self, primary, mirror, volume="v", size="64MiB", mode="sync", group=None):
        """Creates a volume on `primary`, mirrors its group and waits until the mirror follows."""
        group = group or volume
        primary.tandem("volume", "create", volume, "--size", size, "--group", group)
        primary.tandem("mirror", "add", group, mirror.service, "--mode", mode)
        wait_until(lambda: primary.slot(group)["state"] == "following", "the mirror to follow")

    @staticmethod
    def promote(node, group):
        """Promotes as soon as the node has noticed that the primary is gone."""
        wait_until(lambda: node.tandem("promote", group, "--yes").returncode == 0, "the promotion")
        # A volume may have a name of its own: ask for any of the group's.
        volume = node.group(group)["volumes"][0]["name"]
        wait_until(lambda: node.serves(volume), "the promoted node to serve")

    @staticmethod
    def wait_in_sync(primary, group):
        wait_until(lambda: primary.slot(group)["in_sync"], "the mirror to be in sync")

    def assert_sound(self, *nodes):
        """tandem-inspect reads every block of these stopped nodes' pools."""
        for node in nodes:
            checked = inspect(node.pool, "verify", check=False)
            self.assertEqual(checked.returncode, 0,
                             f"{node.name}: {checked.stdout}{checked.stderr}")

    def mount(self, node, volume, **options):
        mounted = Mounted(node, volume, self.directory, **options)
        self.mounts.append(mounted)
        return mounted


def corrupt(path, offset, length=1):
    """Flips bits in a file, as a bad disk would."""
    with open(path, "r+b") as file:
        file.seek(offset)
        old = file.read(length)
        file.seek(offset)
        file.write(bytes(b ^ 0xff for b in old))


def main():
    """unittest.main() with exit code 77 when every test was skipped."""
    program = unittest.main(module="__main__", exit=False, verbosity=2)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    if result.testsRun == 0 or len(result.skipped) == result.testsRun:
        sys.exit(SKIPPED)
    sys.exit(0)
