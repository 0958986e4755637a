"""qemu-io: single requests as a hypervisor sends them."""

import nbd_support

nbd_support.require_programs("qemu-io")


class QemuIo(nbd_support.NbdTest):
    def io(self, *commands, export="disk", options=(), fails=False):
        words = ["qemu-io", "-f", "raw", *options]
        for command in commands:
            words += ["-c", command]
        return self.run_client(*words, self.uri(export), fails=fails)

    def test_patterns(self):
        self.io("write -P 0x5a 64k 128k", "read -P 0x5a 64k 128k", "write -z 96k 32k",
                "read -P 0 96k 32k", "read -P 0x5a 128k 64k", "flush")

    def test_fua_and_unmap(self):
        self.io("write -f -P 7 1M 4k", "discard 1M 4k", "read -P 0 1M 4k", "write -z -u 2M 64k",
                "read -P 0 2M 64k")

    def test_unaligned(self):
        self.io("write -P 1 512 512", "write -P 2 1000 24", "read -P 1 512 488", "read -P 2 1000 24")

    def test_unaligned_on_4096(self):
        self.io("write -P 1 0 8192", "write -P 3 100 50", "read -P 3 100 50", "read -P 1 150 100",
                export="disk4k")

    def test_vectors_and_parallel_writes(self):
        self.io("writev -P 9 3M 4k 8k 512 3584", "readv -P 9 3M 4k 8k 512 3584",
                "aio_write -P 4 4M 1M", "aio_write -P 5 5M 1M", "aio_flush",
                "read -P 4 4M 1M", "read -P 5 5M 1M")

    def test_cache_modes(self):
        for cache in ("none", "writethrough", "writeback", "unsafe"):
            self.io("write -P 6 6M 64k", "read -P 6 6M 64k", options=("-t", cache))

    def test_errors(self):
        self.assertIn("Input/output error", self.io("read 2M 4k", export="broken", fails=True))
        self.assertIn("No space left",
                      self.io("write 0 1M", "write 2M 1M", export="full", fails=True))
        self.io("discard 0 8M", export="full")


if __name__ == "__main__":
    nbd_support.main()
