"""libnbd: every command and flag one by one, with the client's strict checks on or off."""

import errno
import os
import random

import nbd_support
from nbd_support import MIB

try:
    import nbd
except ImportError:
    nbd_support.skip_module("python3-libnbd is not installed")


class Libnbd(nbd_support.NbdTest):
    def connect(self, export="disk", strict=True, structured=True, contexts=True, old=False):
        handle = nbd.NBD()
        if contexts and structured:
            handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        handle.set_request_structured_replies(structured)
        if old:
            handle.set_handshake_flags(0)
        if not strict:
            handle.set_strict_mode(0)
        handle.connect_uri(self.uri(export))
        self.addCleanup(self.close, handle)
        return handle

    @staticmethod
    def close(handle):
        if handle.aio_is_ready():
            handle.shutdown()

    def expect(self, number, call, *arguments, **named):
        with self.assertRaises(nbd.Error) as caught:
            call(*arguments, **named)
        self.assertEqual(caught.exception.errnum, number,
                         f"{caught.exception.string} instead of {errno.errorcode[number]}")

    def test_what_is_told(self):
        h = self.connect()
        self.assertEqual(h.get_protocol(), "newstyle-fixed")
        self.assertTrue(h.get_structured_replies_negotiated())
        self.assertTrue(h.can_multi_conn())
        self.assertTrue(h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION))
        self.assertEqual(h.get_block_size(nbd.SIZE_PREFERRED), 4096)

    def test_old_client(self):
        """Without fixed newstyle only EXPORT_NAME works, and its reply is padded."""
        h = self.connect(structured=False, old=True)
        self.assertEqual(h.get_protocol(), "newstyle")
        h.pwrite(b"old" * 1024, 0)
        self.assertEqual(h.pread(3072, 0), b"old" * 1024)

    def test_simple_replies(self):
        h = self.connect(structured=False)
        self.assertFalse(h.get_structured_replies_negotiated())
        data = os.urandom(65536)
        h.pwrite(data, 8192)
        self.assertEqual(h.pread(65536, 8192), data)
        self.assertFalse(h.can_df())

    def test_write_read_flags(self):
        h = self.connect()
        data = os.urandom(1 * MIB)
        h.pwrite(data, 4 * MIB, nbd.CMD_FLAG_FUA)
        h.flush()
        self.assertEqual(h.pread(1 * MIB, 4 * MIB), data)
        whole = h.pread_structured(1 * MIB, 4 * MIB, lambda *chunk: None, nbd.CMD_FLAG_DF)
        self.assertEqual(whole, data)

    def test_largest_payload(self):
        h = self.connect("huge")
        data = os.urandom(4096) * (32 * MIB // 4096)
        h.pwrite(data, 1 << 39)
        self.assertEqual(h.pread(32 * MIB, 1 << 39), data)
        h.trim(32 * MIB, 1 << 39)

    def test_above_the_largest_payload(self):
        h = self.connect("huge", strict=False)
        self.expect(errno.EINVAL, h.pread, 32 * MIB + 512, 0)
        self.expect(errno.EINVAL, h.pwrite, bytes(32 * MIB + 512), 0)
        self.assertEqual(h.pread(512, 0), bytes(512))

    def test_sparse_read_is_in_chunks(self):
        h = self.connect()
        h.trim(4 * MIB, 0)
        h.pwrite(b"\1" * 65536, 1 * MIB)
        chunks = []
        h.pread_structured(4 * MIB, 0, lambda data, offset, status, error:
                           chunks.append((offset, len(data), status)))
        self.assertEqual(chunks, [(0, 1 * MIB, nbd.READ_HOLE), (1 * MIB, 65536, nbd.READ_DATA),
                                  (MIB + 65536, 3 * MIB - 65536, nbd.READ_HOLE)])
        chunks.clear()
        h.pread_structured(4 * MIB, 0, lambda data, offset, status, error:
                           chunks.append((offset, len(data), status)), nbd.CMD_FLAG_DF)
        self.assertEqual(chunks, [(0, 4 * MIB, nbd.READ_DATA)])

    def extents(self, h, length, offset, flags=0):
        found = []
        h.block_status(length, offset,
                       lambda context, at, entries, error: found.extend(entries), flags)
        return list(zip(found[::2], found[1::2]))

    def test_trim_and_zero_and_status(self):
        h = self.connect()
        hole = nbd.STATE_HOLE | nbd.STATE_ZERO
        h.pwrite(b"\1" * MIB, 0)
        self.assertEqual(self.extents(h, MIB, 0), [(MIB, 0)])
        h.trim(65536, 65536)
        self.assertEqual(self.extents(h, MIB, 0), [(65536, 0), (65536, hole), (MIB - 131072, 0)])
        self.assertEqual(self.extents(h, MIB, 0, nbd.CMD_FLAG_REQ_ONE), [(65536, 0)])
        h.zero(65536, 262144, nbd.CMD_FLAG_FAST_ZERO)
        self.assertEqual(h.pread(131072, 262144), bytes(65536) + b"\1" * 65536)
        self.assertEqual(self.extents(h, 65536, 262144), [(65536, hole)])
        h.zero(65536, 393216, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
        self.assertFalse(self.extents(h, 65536, 393216)[0][1] & nbd.STATE_HOLE)
        h.cache(MIB, 0)
        h.flush()

    def test_zero_and_trim_above_the_payload_limit(self):
        h = self.connect("huge")
        h.zero(3 << 30, 0)
        h.trim(3 << 30, 1 << 30)
        self.assertEqual(h.pread(4096, 0), bytes(4096))

    def test_any_alignment(self):
        """A client that ignores the advertised minimum is served byte by byte."""
        h = self.connect(strict=False)
        chance = random.Random(4)
        model = bytearray(h.pread(MIB, 0))
        for _ in range(300):
            offset = chance.randrange(MIB - 1)
            length = chance.randrange(1, min(20000, MIB - offset) + 1)
            what = chance.randrange(4)
            if what == 0:
                data = chance.randbytes(length)
                h.pwrite(data, offset)
                model[offset:offset + length] = data
            elif what == 1:
                h.zero(length, offset)
                model[offset:offset + length] = bytes(length)
            elif what == 2:
                h.trim(length, offset)
                model[offset:offset + length] = h.pread(length, offset)
            else:
                self.assertEqual(h.pread(length, offset), bytes(model[offset:offset + length]))
        self.assertEqual(h.pread(MIB, 0), bytes(model))

    def test_bounds(self):
        h = self.connect(strict=False)
        size = h.get_size()
        self.expect(errno.EINVAL, h.pread, 512, size)
        self.expect(errno.EINVAL, h.pread, 1024, size - 512)
        self.expect(errno.ENOSPC, h.pwrite, bytes(1024), size - 512)
        self.expect(errno.ENOSPC, h.zero, 1024, size - 512)
        self.expect(errno.EINVAL, h.trim, 1024, size - 512)
        self.expect(errno.EINVAL, h.cache, 1024, size - 512)
        h.pwrite(bytes(512), size - 512)

    def test_unknown_flags_and_commands(self):
        h = self.connect(strict=False)
        self.expect(errno.EINVAL, h.pread, 512, 0, nbd.CMD_FLAG_NO_HOLE)
        self.expect(errno.EINVAL, h.pwrite, bytes(512), 0, nbd.CMD_FLAG_DF)
        self.expect(errno.EINVAL, h.pread, 0, 0)
        self.assertEqual(len(h.pread(512, 0)), 512)

    def test_read_only(self):
        h = self.connect("readonly", strict=False)
        self.assertTrue(h.is_read_only())
        self.expect(errno.EPERM, h.pwrite, bytes(512), 0)
        self.expect(errno.EPERM, h.trim, 512, 0)
        self.expect(errno.EPERM, h.zero, 512, 0)
        self.assertEqual(h.pread(3, 0), bytes((1, 2, 3)))

    def test_no_space(self):
        h = self.connect("full")
        h.pwrite(b"\1" * MIB, 0)
        self.expect(errno.ENOSPC, h.pwrite, b"\1" * 4096, 2 * MIB)
        h.pwrite(b"\2" * MIB, 0)
        h.trim(MIB, 0)
        h.pwrite(b"\1" * 4096, 2 * MIB)
        h.trim(MIB, 2 * MIB)

    def test_broken(self):
        h = self.connect("broken")
        self.assertEqual(h.pread(4096, 0), bytes(4096))
        self.expect(errno.EIO, h.pread, 4096, 2 * MIB)
        self.expect(errno.EIO, h.flush)
        self.assertEqual(h.pread(4096, 0), bytes(4096))

    def test_many_in_flight(self):
        """More at once than the server takes; it makes the client wait, and loses nothing."""
        h = self.connect()
        chance = random.Random(5)
        model = bytearray(8 * MIB)
        h.pwrite(bytes(8 * MIB), 0)
        outcomes = []
        for i in range(1000):
            data = chance.randbytes(4096)
            at = i * 4096
            model[at:at + 4096] = data
            # The completion returns 1, so that the client forgets the command.
            h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), at,
                         lambda error: outcomes.append(error.value) or 1)
        while h.aio_in_flight() > 0:
            h.poll(20000)
        self.assertEqual(outcomes, [0] * 1000)
        self.assertEqual(h.pread(8 * MIB, 0), bytes(model))

    def test_flush_covers_all_connections(self):
        one, two = self.connect(), self.connect()
        one.pwrite(b"\7" * 4096, 0)
        two.flush()
        self.assertEqual(two.pread(4096, 0), b"\7" * 4096)


if __name__ == "__main__":
    nbd_support.main()
