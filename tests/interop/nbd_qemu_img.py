"""qemu-img: info, convert in and out, compare, map, bench."""

import nbd_support
from nbd_support import MIB

nbd_support.require_programs("qemu-img", "nbdcopy", "nbdinfo")

IMAGE_BYTES_MAX = 64 * MIB


class QemuImg(nbd_support.NbdTest):
    def test_info(self):
        told = self.run_json("qemu-img", "info", "--output=json", self.uri())
        self.assertEqual(told["format"], "raw")
        self.assertGreaterEqual(told["virtual-size"], 16 * MIB)

    def fill(self, uri, seed):
        size = self.run_json("qemu-img", "info", "--output=json", uri)["virtual-size"]
        if size > IMAGE_BYTES_MAX:
            # The rest of a larger export must be zero to equal a shorter image.
            size = IMAGE_BYTES_MAX
            self.clear(uri)
        image = self.sparse_image(size, seed)
        self.run_client("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "16",
                        image, uri)
        return image

    def test_convert_and_compare(self):
        image = self.fill(self.uri(), seed=11)
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", image, self.uri())
        back = self.path("back.qcow2")
        self.run_client("qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.uri(), back)
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, back)
        self.run_client("qemu-img", "check", back)

    def test_compare_finds_a_difference(self):
        image = self.fill(self.uri(), seed=12)
        with open(image, "r+b") as file:
            file.seek(5 * MIB)
            file.write(b"different")
        said = self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", image, self.uri(),
                               fails=True)
        self.assertIn("Content mismatch", said)

    def test_map(self):
        extents = self.run_json("qemu-img", "map", "--output=json", self.uri("readonly"))
        self.assertEqual([(e["start"], e["length"], e["data"], e["zero"]) for e in extents],
                         [(0, 2 * MIB, True, False), (2 * MIB, 2 * MIB, False, True)])

    def test_logical_block_of_4096(self):
        image = self.fill(self.uri("disk4k"), seed=13)
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", "raw", image, self.uri("disk4k"))

    def test_bench(self):
        self.run_client("qemu-img", "bench", "-w", "-f", "raw", "-c", "2000", "-d", "32",
                        "-s", "4096", "--flush-interval=64", self.uri())

    def test_errors_are_told(self):
        image = self.path("image")
        with open(image, "wb") as file:
            file.write(b"x" * (8 * MIB))
        said = self.run_client("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image,
                               self.uri("full"), fails=True)
        self.assertIn("No space left", said)
        self.clear(self.uri("full"))


if __name__ == "__main__":
    nbd_support.main()
