"""The systems that Tandem is compared with. Each has a name, `endpoint` (arguments that lead fio and
commit_load to it), `pids()` of every process that works for it, and

    start()      once, before everything
    activate()   before each cell: the system is the one that works now
    settle()     after each cell: what it put off is done, so that its CPU time is counted
    latency()    around each cell: for lib/stages.py
    close()

All of QEMU's run on the same two prewritten files with O_DIRECT, no page cache, an iothread and
io_uring: the fastest of their settings here. Only one system works at a time."""

import json
import os
import pathlib
import socket
import subprocess
import time

from lib.machine import MIB, first_line

EXPORT = "disk"


class System:
    name = title = ""
    note = ""  # what a reader must know beside the figures

    def __init__(self, context):
        self.context = context
        self.processes = []

    def pids(self):
        return [process.pid for process in self.processes]

    @property
    def endpoint(self):
        uri = f"nbd+unix:///{EXPORT}?socket={self.socket}"
        return {"fio": ["--ioengine=nbd", f"--uri={uri}"], "commit": ["--uri", uri]}

    @property
    def socket(self):
        return self.context.directory / f"{self.name}.sock"

    def start(self):
        pass

    def activate(self):
        pass

    def settle(self):
        pass

    def latency(self):
        """What the system itself says of where its time went so far; None: it does not."""
        return None

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes = []

    def spawn(self, *command, ready):
        """Starts a process that dies with us, and waits until the socket `ready` is there."""
        log = open(self.context.directory / f"{self.name}.log", "ab")  # the child keeps it
        process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log, preexec_fn=self.context.harness.die_with_parent)
        log.close()
        self.processes.append(process)

        def up():
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended; its log:\n{self.log()}")
            return connects(ready)
        self.context.harness.wait_until(up, f"{pathlib.Path(command[0]).name} to listen")

    def log(self):
        return (self.context.directory / f"{self.name}.log").read_text(errors="replace")[-2000:]


def connects(address):
    family = socket.AF_UNIX if isinstance(address, pathlib.Path) else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.connect(str(address) if family == socket.AF_UNIX else address)
            return True
        except OSError:
            return False


def prewritten(path, size):
    """A file of random bytes without unwritten extents."""
    if path.exists():
        return path
    piece = os.urandom(16 * MIB)
    with open(path, "wb", buffering=0) as file:
        for at in range(0, size, len(piece)):
            file.write(piece[:min(len(piece), size - at)])
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


class Raw(System):
    name, title = "raw", "raw file, io_uring"
    note = "The disk's own limit: no server, no network, one copy, written in place."

    def start(self):
        self.file = prewritten(self.context.directory / "a", self.context.size)

    @property
    def endpoint(self):
        return {"fio": ["--ioengine=io_uring", "--direct=1", f"--filename={self.file}"],
                "commit": ["--file", str(self.file)]}


class Null(System):
    name, title = "null", "nbdkit null"
    note = "Stores nothing: the limit of the client and of NBD."

    def start(self):
        self.spawn("nbdkit", "-U", self.socket, "-f", "-e", EXPORT, "null",
                   f"size={self.context.size}", ready=self.socket)


class Qemu(System):
    """qemu-storage-daemon with a raw file."""
    name, title = "qsd", "qemu-storage-daemon, raw"
    note = "One copy."

    def daemon(self, *arguments, ready):
        self.spawn(self.context.qemu, "--object", "iothread,id=io0", *arguments, ready=ready)

    def file(self, name):
        return ("--blockdev", f"driver=file,node-name={name},filename="
                f"{prewritten(self.context.directory / name, self.context.size)},"
                "cache.direct=on,aio=io_uring,locking=off")

    def export(self, node):
        return ("--nbd-server", f"addr.type=unix,addr.path={self.socket}", "--export",
                f"type=nbd,id=e,node-name={node},name={EXPORT},writable=on,iothread=io0")

    def start(self):
        self.daemon(*self.file("a"), *self.export("a"), ready=self.socket)

    def start_remote(self):
        """The second node: serves file b over TCP. Returns the client's side of it."""
        port = self.context.harness.free_port()
        self.daemon(*self.file("b"), "--nbd-server",
                    f"addr.type=inet,addr.host=127.0.0.1,addr.port={port}", "--export",
                    f"type=nbd,id=e,node-name=b,name={EXPORT},writable=on,iothread=io0",
                    ready=("127.0.0.1", port))
        return ("--blockdev", "driver=nbd,node-name=remote,server.type=inet,"
                f"server.host=127.0.0.1,server.port={port},export={EXPORT}")


class Quorum(Qemu):
    name, title = "quorum", "QEMU quorum"
    note = "Local and remote child over TCP: both have every write, and every flush waits for both."

    def start(self):
        remote = self.start_remote()
        self.daemon(*self.file("a"), *remote, "--blockdev",
                    "driver=quorum,node-name=both,children.0=a,children.1=remote,"
                    "vote-threshold=2,read-pattern=fifo", *self.export("both"), ready=self.socket)


class QemuMirror(Qemu):
    name, title = "mirror", "QEMU mirror, write-blocking"
    note = ("A write waits for both copies, but a flush is not passed on to the mirror: "
            "its flush rows are not durable on both.")

    def start(self):
        remote = self.start_remote()
        monitor = self.context.directory / "monitor.sock"
        self.daemon(*self.file("a"), *remote, *self.export("a"), "--chardev",
                    f"socket,id=m,path={monitor},server=on,wait=off", "--monitor", "chardev=m",
                    ready=self.socket)
        with Monitor(monitor) as qmp:
            qmp.call("blockdev-mirror", **{"job-id": "mirror", "device": "a", "target": "remote",
                                           "sync": "none", "copy-mode": "write-blocking"})
            self.context.harness.wait_until(
                lambda: any(job["status"] == "ready" for job in qmp.call("query-jobs")),
                "QEMU's mirror to be ready")


class Monitor:
    """QEMU's QMP, one call at a time."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")
        self.lines.readline()
        self.call("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()

    def call(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = json.loads(self.lines.readline())
            if "error" in answer:
                raise RuntimeError(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            time.sleep(0)  # an event; the answer follows


def qemu_version(program):
    return first_line(program, "--version")
