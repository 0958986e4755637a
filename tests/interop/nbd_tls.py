"""TLS with certificates: nbdinfo and nbdcopy (GnuTLS) and qemu-img against our OpenSSL."""

import contextlib
import os
import shutil
import socket
import struct
import tempfile

import nbd_support
from nbd_support import MIB

nbd_support.require_programs("nbdinfo", "nbdcopy", "qemu-img", "openssl")
if os.environ.get("TANDEM_NBD_URI"):
    nbd_support.skip_module("TLS needs a server that this test started")

EXPORT_NAME, LIST, STARTTLS = 1, 3, 5
TLS_REQUIRED = (1 << 31) + 5


def openssl(*words):
    nbd_support.subprocess.run(("openssl", *words), check=True, capture_output=True, timeout=30)


def make_ca(folder, name):
    key, certificate = f"{folder}/{name}-key.pem", f"{folder}/{name}-cert.pem"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", key, "-out", certificate, "-days", "2", "-subj", f"/CN={name}")
    return key, certificate


def issue(folder, ca, name, days="2"):
    key, request = f"{folder}/{name}-key.pem", f"{folder}/{name}.csr"
    certificate, extensions = f"{folder}/{name}-cert.pem", f"{folder}/{name}.ext"
    with open(extensions, "w") as file:
        file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    openssl("x509", "-req", "-in", request, "-CA", ca[1], "-CAkey", ca[0], "-CAcreateserial",
            "-out", certificate, "-days", days, "-extfile", extensions)
    return key, certificate


def client_folder(folder, name, ca, pair=None):
    """A folder with the file names that libnbd and QEMU look for."""
    path = f"{folder}/{name}"
    os.mkdir(path)
    shutil.copy(ca[1], f"{path}/ca-cert.pem")
    if pair:
        shutil.copy(pair[0], f"{path}/client-key.pem")
        shutil.copy(pair[1], f"{path}/client-cert.pem")
    return path


class Tls(nbd_support.NbdTest):
    @classmethod
    def setUpClass(cls):
        cls.external = None
        cls.keys = tempfile.mkdtemp(prefix="tandem-interop-")
        ca, foreign = make_ca(cls.keys, "ca"), make_ca(cls.keys, "foreign")
        node = issue(cls.keys, ca, "node")
        cls.good = client_folder(cls.keys, "good", ca, issue(cls.keys, ca, "guest"))
        cls.stranger = client_folder(cls.keys, "stranger", ca,
                                     issue(cls.keys, foreign, "stranger-guest"))
        cls.nobody = client_folder(cls.keys, "nobody", ca)
        cls.mistrusting = client_folder(cls.keys, "mistrusting", foreign,
                                        issue(cls.keys, ca, "guest2"))
        cls.server = nbd_support.start_server(
            tcp=True, tls={"certificate": node[1], "key": node[0], "client_ca": ca[1]})

    @classmethod
    def tearDownClass(cls):
        counters = cls.server.stop()
        shutil.rmtree(cls.keys)
        if counters.get("violations", 1) != 1:
            raise RuntimeError("only the smuggled plain text is a violation of the protocol")

    def secure(self, certificates, export="disk"):
        return (f"nbds://localhost:{self.server.port}/{export}"
                f"?tls-certificates={certificates}")

    def test_handshake(self):
        told = self.run_json("nbdinfo", "--json", self.secure(self.good))
        self.assertEqual(told["TLS"], True)
        self.assertTrue(told["structured"])
        self.assertEqual(told["exports"][0]["contexts"], ["base:allocation"])

    def test_data(self):
        image = self.sparse_image(64 * MIB, seed=21)
        self.run_client("nbdcopy", "--flush", image, self.secure(self.good))
        back = self.path("back")
        self.run_client("nbdcopy", "--connections=4", self.secure(self.good), back)
        self.run_client("cmp", image, back)

    def test_qemu(self):
        image = self.sparse_image(64 * MIB, seed=22)
        target = (f"driver=raw,file.driver=nbd,file.host=localhost,file.port={self.server.port},"
                  "file.export=disk,file.tls-creds=tls")
        secret = f"tls-creds-x509,id=tls,endpoint=client,dir={self.good},verify-peer=on"
        self.run_client("qemu-img", "convert", "-n", "--object", secret, "--target-image-opts",
                        image, target)
        self.run_client("qemu-img", "compare", "--object", secret, "--image-opts",
                        f"driver=raw,file.driver=file,file.filename={image}", target)

    def test_plain_text_is_refused_on_tcp(self):
        said = self.run_client("nbdinfo", f"nbd://localhost:{self.server.port}/disk", fails=True)
        self.assertIn("TLS", said)

    def test_unix_socket_is_exempt_and_may_use_it(self):
        self.run_client("nbdinfo", self.server.uri())
        self.run_client("nbdinfo", f"nbds+unix:///disk?socket={self.server.socket}"
                                   f"&tls-certificates={self.good}", fails=False)

    def test_clients_without_a_good_certificate(self):
        for certificates in (self.stranger, self.nobody):
            self.run_client("nbdinfo", self.secure(certificates), fails=True)

    def test_server_that_the_client_does_not_trust(self):
        self.run_client("nbdinfo", self.secure(self.mistrusting), fails=True)

    def raw(self, *parts):
        """Sends a plain-text handshake and returns all that the server says until it closes."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as client:
            client.sendall(struct.pack(">I", 3) + b"".join(parts))
            client.shutdown(socket.SHUT_WR)
            said = b""
            while piece := client.recv(4096):
                said += piece
            return said[18:]

    @staticmethod
    def option(number, data=b""):
        return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data

    def test_plain_text_options(self):
        reply_type = struct.unpack(">I", self.raw(self.option(LIST))[12:16])[0]
        self.assertEqual(reply_type, TLS_REQUIRED)
        self.assertEqual(self.raw(self.option(EXPORT_NAME, b"disk")), b"")

    def test_plain_text_behind_starttls_is_not_believed(self):
        smuggled = self.option(EXPORT_NAME, b"disk")
        self.assertEqual(self.raw(self.option(STARTTLS) + smuggled), b"")

    def test_garbage_instead_of_a_handshake(self):
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as client:
            client.sendall(struct.pack(">I", 3) + self.option(STARTTLS))
            said = b""
            while len(said) < 38:  # the greeting and the acknowledgement
                said += client.recv(38 - len(said))
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):  # it closes with our bytes unread
                while client.recv(4096):
                    pass

    def test_it_goes_on_after_failures(self):
        self.run_client("nbdinfo", self.secure(self.stranger), fails=True)
        self.run_client("nbdinfo", self.secure(self.good))


if __name__ == "__main__":
    nbd_support.main()
