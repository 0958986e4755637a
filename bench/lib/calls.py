"""Calls of a node's control service from a client that is there already: what a call takes without
the start of a process. curl speaks HTTP/2; of Protocol Buffers there is only what these calls need,
messages of short strings."""

import json
import pathlib
import struct
import subprocess


def message(*strings):
    """The strings as fields 1, 2, …"""
    parts = [bytes([number << 3 | 2, len(text.encode())]) + text.encode()
             for number, text in enumerate(strings, 1)]
    return b"".join(parts)


class Calls:
    """Of one node without TLS."""

    def __init__(self, node):
        self.url = f"http://{node.service}/tandem.v1.Control/"
        self.request = pathlib.Path(node.directory) / "request"
        self.head = pathlib.Path(node.directory) / "head"

    def call(self, method, *strings):
        """Seconds from the request, on an open connection, to the last byte of the answer."""
        body = message(*strings)
        self.request.write_bytes(struct.pack(">BI", 0, len(body)) + body)
        result = subprocess.run(
            ["curl", "-sS", "--http2-prior-knowledge", "--max-time", "60", "-D", self.head,
             "-o", "/dev/null", "-H", "content-type: application/grpc", "-H", "te: trailers",
             "--data-binary", f"@{self.request}", "-w", "%{json}", self.url + method],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        head = self.head.read_text() if self.head.exists() else ""
        if result.returncode != 0 or "grpc-status: 0" not in head:
            raise RuntimeError(f"{method}{strings}: {result.stderr}{head}")
        told = json.loads(result.stdout)
        return told["time_total"] - told["time_pretransfer"]

    def snapshot(self, group, name):
        return self.call("CreateSnapshot", group, name)

    def delete_snapshot(self, group, name):
        return self.call("DeleteSnapshot", group, name)

    def roll_back(self, group, name, branch):
        return self.call("RollBack", group, name, branch)

    def clone(self, group, snapshot, name):
        return self.call("CloneGroup", group, snapshot, name)

    def delete_group(self, name):
        return self.call("DeleteGroup", name)
