#!/usr/bin/python3
"""Writes stamped blocks to an NBD export and keeps a ledger of what was acknowledged.

  ledger.py write URI LEDGER [--in-flight N] [--per-second N] [--seconds S] [--or URI]...
      writes 4 KiB blocks at random places until the time is over or the server is gone; with --or
      it then connects anew, to each URI in turn, and asks again for what was not answered, as a
      hypervisor with a reconnect delay does; at the end it says how long it waited at most
  ledger.py check URI LEDGER
      reads them back: every block must hold its last acknowledged write, or a later one that was
      under way when the server went

Each block carries its own number, the write's sequence number and a checksum, so that wrong data
names itself. The ledger is a text file with one line for each step: "i SEQUENCE BLOCK" before a
write is sent, "a SEQUENCE" when it was acknowledged.
"""

import argparse
import errno
import hashlib
import os
import random
import signal
import struct
import sys
import time

import nbd

BLOCK = 4096
READS_IN_FLIGHT = 64
RECONNECT_SECONDS_MAX = 60
HEADER = struct.Struct("<8sQQ")
MAGIC = b"tdmledgr"
STOPPED = []  # SIGTERM: what is under way is waited for


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
    def __init__(self, uris, path, in_flight, per_second):
        self.uris = uris
        self.handle = self.connect()
        self.blocks = self.handle.get_size() // BLOCK
        # A ledger that exists is continued: no sequence number is used twice.
        self.sequence = max(load(path)[0], default=0) if os.path.exists(path) else 0
        # Line buffered: what was acknowledged is in the file even if this process is killed.
        self.ledger = open(path, "a", buffering=1)
        self.in_flight_max = in_flight
        self.pause = 1 / per_second if per_second else 0
        self.next_at = time.monotonic()
        self.busy = {}  # block -> (sequence, buffer)
        self.acknowledged = 0
        self.reconnects = 0
        self.longest = 0.0  # without an acknowledgement, in seconds
        self.last = time.monotonic()
        self.failed = None
        self.gone = None

    def connect(self):
        """A handle of the first that serves the volume."""
        end = time.monotonic() + RECONNECT_SECONDS_MAX
        while True:
            for uri in self.uris:
                try:
                    handle = nbd.NBD()
                    handle.connect_uri(uri)
                    return handle
                except nbd.Error:
                    if len(self.uris) == 1 or time.monotonic() >= end:
                        raise
            time.sleep(0.02)

    def start_one(self):
        block = random.randrange(self.blocks)
        if block in self.busy:
            return
        self.sequence += 1
        buffer = nbd.Buffer.from_bytearray(bytearray(stamp(block, self.sequence)))
        self.busy[block] = (self.sequence, buffer)
        self.ledger.write(f"i {self.sequence} {block}\n")
        self.send(block)

    def send(self, block):
        sequence, buffer = self.busy[block]

        def done(error):
            code = getattr(error, "value", error)
            if code == errno.ENOTCONN:  # libnbd's own: the connection ended without an answer
                self.gone = self.gone or f"write failed with errno {code}"
            elif code:
                self.failed = self.failed or f"write failed with errno {code}"
            else:
                del self.busy[block]
                self.acknowledged += 1
                self.ledger.write(f"a {sequence}\n")
                self.note_time()
            return 1

        self.handle.aio_pwrite(buffer, block * BLOCK, done)

    def may_start(self):
        """Whether another write is due; what was missed while the server held us is not made good."""
        now = time.monotonic()
        if len(self.busy) >= self.in_flight_max or self.gone or now < self.next_at:
            return False
        self.next_at = max(self.next_at, now - 0.1) + self.pause
        return True

    def note_time(self):
        now = time.monotonic()
        self.longest = max(self.longest, now - self.last)
        self.last = now

    def step(self, goes_on):
        """Asks, and waits for answers; what says that the connection ended is only noted."""
        try:
            while goes_on and self.may_start():
                self.start_one()
            if not self.gone:
                pause = max(1, int(self.pause * 1000)) if self.pause and goes_on else 1000
                self.handle.poll(pause)
        except nbd.Error as error:
            self.gone = self.gone or str(error)

    def reconnect(self):
        self.reconnects += 1
        self.gone = None
        try:
            self.handle = self.connect()
            for block in list(self.busy):
                self.send(block)
        except nbd.Error as error:
            self.gone = str(error)
            self.failed = self.failed or f"nobody serves it: {error}"

    def run(self, seconds):
        end = time.monotonic() + seconds if seconds else None
        self.last = time.monotonic()
        goes_on = True
        while not self.failed and (goes_on or self.busy):
            goes_on = goes_on and not STOPPED and (end is None or time.monotonic() < end)
            self.step(goes_on)
            if self.gone and len(self.uris) > 1 and not self.failed:
                self.reconnect()
            elif self.gone:
                self.failed = self.failed or self.gone
        self.ledger.close()
        print(f"{self.acknowledged} writes were acknowledged" +
              (f"; then the server was gone ({self.failed})" if self.failed else "") +
              (f"; {self.reconnects} new connections, at most {self.longest:.2f} s without an answer"
               if len(self.uris) > 1 else ""))


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
    parser.add_argument("--or", dest="others", action="append", default=[], metavar="URI")
    arguments = parser.parse_args()
    if arguments.what == "write":
        signal.signal(signal.SIGTERM, lambda *_: STOPPED.append(True))
        Writer([arguments.uri, *arguments.others], arguments.ledger, arguments.in_flight,
               arguments.per_second).run(arguments.seconds)
        return 0
    return 0 if check(arguments.uri, arguments.ledger) else 1


if __name__ == "__main__":
    sys.exit(main())
