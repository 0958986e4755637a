#!/usr/bin/python3
"""Writes stamped blocks to an NBD export and keeps a ledger of what was acknowledged.

  ledger.py write URI LEDGER [--in-flight N] [--per-second N] [--seconds S]
      writes 4 KiB blocks at random places until the time is over or the server is gone
  ledger.py check URI LEDGER
      reads them back: every block must hold its last acknowledged write, or a later one that was
      under way when the server went

Each block carries its own number, the write's sequence number and a checksum, so that wrong data
names itself. The ledger is a text file with one line for each step: "i SEQUENCE BLOCK" before a
write is sent, "a SEQUENCE" when it was acknowledged.
"""

import argparse
import hashlib
import os
import random
import struct
import sys
import time

import nbd

BLOCK = 4096
READS_IN_FLIGHT = 64
HEADER = struct.Struct("<8sQQ")
MAGIC = b"tdmledgr"


def stamp(block, sequence):
    """The content of `block` as write `sequence` leaves it."""
    head = HEADER.pack(MAGIC, block, sequence)
    body = (head * (BLOCK // len(head) + 1))[: BLOCK - 16]
    return body + hashlib.md5(body).digest()


def read_stamp(content):
    """(block, sequence), or None when the content is no whole stamp."""
    magic, block, sequence = HEADER.unpack_from(content)
    if magic != MAGIC or content != stamp(block, sequence):
        return None
    return block, sequence


class Writer:
    def __init__(self, uri, path, in_flight, per_second):
        self.handle = nbd.NBD()
        self.handle.connect_uri(uri)
        self.blocks = self.handle.get_size() // BLOCK
        # A ledger that exists is continued: no sequence number is used twice.
        self.sequence = max(load(path)[0], default=0) if os.path.exists(path) else 0
        # Line buffered: what was acknowledged is in the file even if this process is killed.
        self.ledger = open(path, "a", buffering=1)
        self.in_flight_max = in_flight
        self.pause = 1 / per_second if per_second else 0
        self.next_at = time.monotonic()
        self.busy = {}  # block -> buffer
        self.acknowledged = 0
        self.failed = None

    def start_one(self):
        block = random.randrange(self.blocks)
        if block in self.busy:
            return
        self.sequence += 1
        buffer = nbd.Buffer.from_bytearray(bytearray(stamp(block, self.sequence)))
        self.busy[block] = buffer
        self.ledger.write(f"i {self.sequence} {block}\n")
        sequence = self.sequence

        def done(error):
            self.busy.pop(block, None)
            code = getattr(error, "value", error)
            if code:
                self.failed = self.failed or f"write failed with errno {code}"
            else:
                self.acknowledged += 1
                self.ledger.write(f"a {sequence}\n")
            return 1

        self.handle.aio_pwrite(buffer, block * BLOCK, done)

    def may_start(self):
        """Whether another write is due; what was missed while the server held us is not made good."""
        now = time.monotonic()
        if len(self.busy) >= self.in_flight_max or self.failed or now < self.next_at:
            return False
        self.next_at = max(self.next_at, now - 0.1) + self.pause
        return True

    def run(self, seconds):
        end = time.monotonic() + seconds if seconds else None
        try:
            while not self.failed and (end is None or time.monotonic() < end):
                while self.may_start():
                    self.start_one()
                self.handle.poll(max(1, int(self.pause * 1000)) if self.pause else 1000)
            while self.busy and not self.failed:
                self.handle.poll(1000)
        except nbd.Error as error:
            self.failed = str(error)
        self.ledger.close()
        print(f"{self.acknowledged} writes were acknowledged" +
              (f"; then the server was gone ({self.failed})" if self.failed else ""))


def load(path):
    issued, acknowledged = {}, set()
    with open(path) as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # this process was killed within the line
            words = line.split()
            if words[0] == "i":
                issued[int(words[1])] = int(words[2])
            else:
                acknowledged.add(int(words[1]))
    last, later = {}, {}
    for sequence, block in issued.items():
        if sequence in acknowledged:
            last[block] = max(last.get(block, 0), sequence)
    for sequence, block in issued.items():
        if sequence not in acknowledged and sequence > last.get(block, 0):
            later.setdefault(block, set()).add(sequence)
    return issued, acknowledged, last, later


def read_blocks(handle, blocks):
    """Yields (block, content), many reads at a time, in any order."""
    done = []
    for block in blocks:
        buffer = nbd.Buffer(BLOCK)

        def arrived(error, block=block, buffer=buffer):
            done.append((block, buffer, getattr(error, "value", error)))
            return 1

        handle.aio_pread(buffer, block * BLOCK, arrived)
        while handle.aio_in_flight() >= READS_IN_FLIGHT:
            handle.poll(1000)
        yield from finished(done)
    while handle.aio_in_flight():
        handle.poll(1000)
    yield from finished(done)


def finished(done):
    while done:
        block, buffer, code = done.pop()
        if code:
            sys.exit(f"block {block} cannot be read: {os.strerror(code)}")
        yield block, bytes(buffer.to_bytearray())


def check(uri, path):
    issued, acknowledged, last, later = load(path)
    handle = nbd.NBD()
    handle.connect_uri(uri)
    wrong = 0
    for block, content in read_blocks(handle, sorted(last)):
        found = read_stamp(content)
        if found and found[0] == block and (found[1] == last[block] or
                                            found[1] in later.get(block, ())):
            continue
        wrong += 1
        if wrong <= 10:
            what = f"block {found[0]}, write {found[1]}" if found else "no stamp at all"
            print(f"WRONG: block {block} must hold write {last[block]}, holds {what}")
    handle.shutdown()
    print(f"{len(acknowledged)} acknowledged writes on {len(last)} blocks "
          f"({len(issued) - len(acknowledged)} under way at the end): {wrong} wrong")
    return wrong == 0 and len(acknowledged) > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "check"])
    parser.add_argument("uri")
    parser.add_argument("ledger")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--per-second", type=float, default=0, help="no more than so many writes")
    parser.add_argument("--seconds", type=float, default=0)
    arguments = parser.parse_args()
    if arguments.what == "write":
        Writer(arguments.uri, arguments.ledger, arguments.in_flight,
               arguments.per_second).run(arguments.seconds)
        return 0
    return 0 if check(arguments.uri, arguments.ledger) else 1


if __name__ == "__main__":
    sys.exit(main())
