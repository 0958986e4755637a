"""Mutual TLS between nodes and with the operator: who is not vouched for is refused before any
data.

Each refusal must be explained where somebody will look: in the answer to the command, in the
primary's status and log, and, when it is the mirror that refuses, in the mirror's log.
"""

import datetime
import signal
import socket
import ssl

import harness
from harness import nbd

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Authority:
    """An authority that deploy/certificates made, and certificates that it never would make."""

    def __init__(self, directory):
        self.directory = directory

    @property
    def ca(self):
        return self.directory / "ca.crt"

    def issue(self, name, addresses="DNS:localhost,IP:127.0.0.1", days=None, unit=None):
        """Makes name.crt and name.key; `days`: (begin, end) relative to today."""
        base = self.directory / name
        begin, end = days or (-1, 30)
        request, extensions, database = (f"{base}.csr", f"{base}.ext", f"{base}.db")
        with open(extensions, "w") as file:
            file.write("[ca]\ndefault_ca=x\n[x]\npolicy=y\ndefault_md=sha256\nunique_subject=no\n"
                       f"database={database}\nnew_certs_dir={self.directory}\nrand_serial=yes\n"
                       "[y]\nO=optional\nOU=optional\nCN=supplied\n[z]\nbasicConstraints=critical,CA:FALSE\n"
                       f"keyUsage=critical,digitalSignature\nsubjectAltName={addresses}\n"
                       "extendedKeyUsage=serverAuth,clientAuth\n")
        open(database, "w").close()
        today = datetime.datetime.now(datetime.timezone.utc)
        dates = [(today + datetime.timedelta(days=d)).strftime("%Y%m%d%H%M%SZ")
                 for d in (begin, end)]
        harness.run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{base}.key", "-out",
                    request, "-subj", f"/O=Tandem{f'/OU={unit}' if unit else ''}/CN={name}")
        harness.run("openssl", "ca", "-batch", "-notext", "-config", extensions, "-extensions", "z",
                    "-cert", self.ca, "-keyfile", self.directory / "ca.key", "-in", request, "-out",
                    f"{base}.crt", "-startdate", dates[0], "-enddate", dates[1])
        return f"{base}.crt", f"{base}.key"


@harness.needs_nbd
class Tls(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.ours = Authority(self.certificates())
        foreign = self.directory / "foreign"
        harness.run(harness.REPOSITORY / "deploy" / "certificates", foreign,
                    "node-a:127.0.0.1,localhost", "node-b:127.0.0.1,localhost")
        self.foreign = Authority(foreign)

    def node_with(self, name, certificate, key, ca=None):
        return self.node(name, config={"service": {
            "certificate": str(certificate), "key": str(key), "ca": str(ca or self.ours.ca)}})

    def operate_from(self, authority, node, certificates=None):
        """Lets `node`.tandem() trust one authority and show a certificate of that or another."""
        operator = (certificates or authority).directory / "operator"
        node.credentials = lambda: ["--ca", authority.ca, "--certificate", f"{operator}.crt",
                                    "--key", f"{operator}.key"]
        return node

    def tandem(self, node, *arguments, certificate=None, key=None, ca=None):
        operator = self.ours.directory / "operator"
        return harness.run(harness.BIN / "tandem", "--node", node.service, "--ca",
                           ca or self.ours.ca, "--certificate", certificate or f"{operator}.crt",
                           "--key", key or f"{operator}.key", *arguments, check=False)

    # --- the operator's command ------------------------------------------------------------------

    def assert_operator_refused(self, node, *words, **credentials):
        before = node.status()["groups"]
        refused = self.tandem(node, "volume", "create", "intruder", "--size", "16MiB",
                              **credentials)
        self.assertNotEqual(refused.returncode, 0)
        for word in words:
            self.assertIn(word, refused.stdout + refused.stderr)
        self.assertEqual(node.status()["groups"], before)

    def complaints(self, node):
        return node.log(10000).count("event=grpc.complaint")

    def test_operators_who_are_not_vouched_for(self):
        a = self.node("node-a").start()
        self.assertEqual(self.tandem(a, "status").returncode, 0)
        foreign = self.foreign.directory / "operator"
        expired = self.ours.issue("late", days=(-30, -1))
        early = self.ours.issue("early", days=(5, 30))
        with self.subTest("a certificate of a foreign CA"):
            before = self.complaints(a)
            self.assert_operator_refused(a, a.service, certificate=f"{foreign}.crt",
                                         key=f"{foreign}.key")
            self.wait_until(lambda: self.complaints(a) > before, "the node to log the handshake")
        with self.subTest("expired"):
            self.assert_operator_refused(a, "expired on", "late.crt", certificate=expired[0],
                                         key=expired[1])
        with self.subTest("not valid yet"):
            self.assert_operator_refused(a, "valid only from", "early.crt", certificate=early[0],
                                         key=early[1])
        with self.subTest("the operator trusts another CA"):
            self.assert_operator_refused(a, "vouches for", ca=self.foreign.ca)
        with self.subTest("a key that does not belong to the certificate"):
            self.assert_operator_refused(a, "does not belong", key=f"{foreign}.key")
        with self.subTest("plain text"):
            refused = harness.run(harness.BIN / "tandem", "--node", a.service, "--insecure",
                                  "status", check=False)
            self.assertEqual(refused.returncode, 3, refused.stdout)
            self.assertIn("TLS is off on this side", refused.stderr)
        self.assertEqual(self.tandem(a, "status").returncode, 0)

    def test_a_node_reached_by_a_name_that_its_certificate_does_not_have(self):
        wrong = self.ours.issue("wrong-host", addresses="DNS:elsewhere.example,IP:127.0.0.9")
        a = self.node_with("node-a", *wrong).spawn()
        self.wait_until(lambda: "event=node.ready" in a.log(), "the node to be ready")
        refused = self.tandem(a, "volume", "create", "v", "--size", "16MiB")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("made for other names", refused.stderr)

    def handshake(self, node, certificate=None, insist=True):
        """What becomes of a bare TLS client: the bytes the node sent, or why not."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        if certificate:
            context.load_cert_chain(*certificate)
        host, port = node.service.rsplit(":", 1)
        try:
            with socket.create_connection((host, int(port)), timeout=20) as plain:
                with context.wrap_socket(plain) as client:
                    client.sendall(HTTP2 + b"\0\0\0\4\0\0\0\0\0")  # and empty settings
                    return client.recv(4096)
        except (ssl.SSLError, ConnectionError) as error:
            return error

    def test_no_certificate_means_not_one_byte(self):
        a = self.node("node-a").start()
        operator = self.ours.directory / "operator"
        # With one it answers, so it is the certificate that is missed below.
        self.assertIsInstance(self.handshake(a, (f"{operator}.crt", f"{operator}.key")), bytes)
        self.assertTrue(self.handshake(a, (f"{operator}.crt", f"{operator}.key")))
        before = self.complaints(a)
        for certificate in (None, (self.foreign.directory / "operator.crt",
                                   self.foreign.directory / "operator.key")):
            said = self.handshake(a, certificate)
            self.assertFalse(isinstance(said, bytes) and said, f"it said {said!r}")
        self.wait_until(lambda: self.complaints(a) > before, "the node to log the handshakes")

    def test_plain_text_at_the_tls_port_gets_nothing(self):
        a = self.node("node-a").start()
        host, port = a.service.rsplit(":", 1)
        for text in (HTTP2, b"GET / HTTP/1.1\r\n\r\n"):
            with socket.create_connection((host, int(port)), timeout=20) as client:
                client.sendall(text)
                said = b""
                try:
                    while piece := client.recv(4096):
                        said += piece
                except ConnectionError:
                    pass
                # At most an alert of TLS, never a frame of HTTP/2.
                self.assertLessEqual(len(said), 7)
        self.assertEqual(self.tandem(a, "status").returncode, 0)

    # --- the other node --------------------------------------------------------------------------

    def assert_mirror_refused(self, a, b, *words, heard_by_b=False):
        """`a` must not be able to make `b` its mirror: nothing arrives, and both say why."""
        a.tandem("volume", "create", "v", "--size", "16MiB")
        a.tandem("mirror", "add", "v", b.service, "--mode", "sync", check=False)
        with a.nbd("v") as disk:
            disk.pwrite(b"secret" * 1024, 0)
        harness.wait_until(lambda: a.slot("v")["reason"], "the primary to say why")
        for word in words:
            harness.wait_until(lambda: word in a.slot("v")["reason"],
                               f"'{word}' in what the primary says")
        self.assertIn("event=slot.state", a.log(1000))
        self.assertIn(words[0], a.log(1000))
        if heard_by_b:
            harness.wait_until(lambda: self.complaints(b) > 0, "the other node to log it")
        self.assertEqual(b.status()["groups"], [])
        # Nothing of it is on that node's disk: its zones were never touched.
        self.assertEqual(b.status()["pool"]["zones_free"], b.status()["pool"]["zones_total"])

    def test_a_mirror_of_a_foreign_ca(self):
        """Each trusts its own CA only, as with two certificates made on two nodes."""
        a = self.node("node-a").start()
        pair = self.foreign.directory / "node-b"
        b = self.node_with("node-b", f"{pair}.crt", f"{pair}.key", self.foreign.ca)
        self.operate_from(self.foreign, b).start()
        self.assert_mirror_refused(a, b, "vouches for")

    def test_a_primary_that_the_mirror_does_not_know(self):
        """The primary trusts the mirror's CA, but shows a certificate of another."""
        pair = self.foreign.directory / "node-a"
        both = self.directory / "both.crt"
        both.write_text(self.ours.ca.read_text() + self.foreign.ca.read_text())
        a = self.node_with("node-a", f"{pair}.crt", f"{pair}.key", both)
        self.operate_from(self.foreign, a, certificates=self.ours).start()
        b = self.node("node-b").start()
        self.assert_mirror_refused(a, b, "rejects our certificate", heard_by_b=True)

    def test_a_primary_that_shows_an_operators_certificate(self):
        """Signed by the right authority, but made for a desk: it gets no stream to a mirror."""
        made = harness.run("openssl", "x509", "-in", self.ours.directory / "operator.crt", "-noout",
                           "-subject").stdout
        self.assertIn("tandem-operator", made, "deploy/certificates marks it")
        a = self.node_with("node-a", *self.ours.issue("desk", unit="tandem-operator")).start()
        b = self.node("node-b").start()
        self.assert_mirror_refused(a, b, "the certificate of desk is an operator's")

    def test_a_mirror_whose_certificate_has_expired(self):
        a = self.node("node-a").start()
        b = self.node_with("node-b", *self.ours.issue("late-node", days=(-30, -1))).spawn()
        self.wait_until(lambda: "event=node.ready" in b.log(), "the node to be ready")
        # It serves its own volumes all the same, and says what is wrong.
        self.assertIn("event=tls.trouble", b.log(100))
        self.assertIn("expired on", b.log(100))
        a.tandem("volume", "create", "v", "--size", "16MiB")
        self.tandem(a, "mirror", "add", "v", b.service, "--mode", "sync")
        harness.wait_until(lambda: "expired" in a.slot("v")["reason"], "the primary to say why")
        self.assertEqual(a.slot("v")["received"], 0)

    def test_a_mirror_at_an_address_that_its_certificate_does_not_have(self):
        a = self.node("node-a").start()
        wrong = self.ours.issue("wrong-node", addresses="DNS:elsewhere.example,IP:127.0.0.9")
        b = self.node_with("node-b", *wrong).spawn()
        self.wait_until(lambda: "event=node.ready" in b.log(), "the node to be ready")
        a.tandem("volume", "create", "v", "--size", "16MiB")
        self.tandem(a, "mirror", "add", "v", b.service, "--mode", "sync")
        harness.wait_until(lambda: "other names" in a.slot("v")["reason"],
                           "the primary to say why")

    def test_a_mirror_without_tls(self):
        a = self.node("node-a").start()
        b = self.node("node-b", tls=False).start()
        self.assert_mirror_refused(a, b, "no TLS there")
        self.assertIn("event=tls.off", b.log(100))

    def test_renewed_certificates_are_taken_without_a_restart(self):
        """The way out of the above: new files, and the mirror follows."""
        a = self.node("node-a").start()
        b = self.node_with("node-b", *self.ours.issue("node-x", days=(-30, -1))).spawn()
        self.wait_until(lambda: "event=node.ready" in b.log(), "the node to be ready")
        a.tandem("volume", "create", "v", "--size", "16MiB")
        self.tandem(a, "mirror", "add", "v", b.service, "--mode", "sync")
        harness.wait_until(lambda: "expired" in a.slot("v")["reason"], "the primary to say why")
        pid = b.process.pid
        self.ours.issue("node-x")
        harness.wait_until(lambda: self.tandem(a, "status").returncode == 0 and
                           a.slot("v")["in_sync"], "the mirror to follow")
        self.assertEqual(b.process.pid, pid)
        self.assertTrue(b.is_running())

    # --- the volumes' own TLS --------------------------------------------------------------------

    def read_over_tls(self, node, authority):
        """One block of "v" over TCP, by a client that trusts and is signed by `authority`."""
        folder = self.directory / f"client-{authority.directory.name}"
        if not folder.exists():
            folder.mkdir()
            for name, of in (("ca-cert", "ca.crt"), ("client-cert", "operator.crt"),
                             ("client-key", "operator.key")):
                (folder / f"{name}.pem").symlink_to(authority.directory / of)
        disk = nbd.NBD()
        disk.set_uri_allow_local_file(True)
        port = node.nbd_tcp.rsplit(":", 1)[1]
        disk.connect_uri(f"nbds://localhost:{port}/v?tls-certificates={folder}")
        self.assertEqual(bytes(disk.pread(4096, 0)), b"secret" * 682 + b"secr")
        return disk

    def test_the_volumes_certificates_are_read_again_at_a_hangup(self):
        """Another authority altogether, at once: for who connects from then on, both ways."""
        files = {"certificate": "nbd.crt", "key": "nbd.key", "client_ca": "nbd-ca.crt"}
        sources = {"certificate": "node-a.crt", "key": "node-a.key", "client_ca": "ca.crt"}

        def place(authority, *which):
            for part in which or files:
                new = self.directory / f"{files[part]}.new"
                new.write_bytes((authority.directory / sources[part]).read_bytes())
                new.rename(self.directory / files[part])

        def hang_up(event):
            before = a.log(10000).count(event)
            a.process.send_signal(signal.SIGHUP)
            harness.wait_until(lambda: a.log(10000).count(event) > before, event)

        place(self.ours)
        a = self.node("node-a", config={"nbd": {
            key: str(self.directory / name) for key, name in files.items()}}).start()
        a.tandem("volume", "create", "v", "--size", "16MiB")
        with a.nbd("v") as disk:
            disk.pwrite(b"secret" * 682 + b"secr", 0)
        old = self.read_over_tls(a, self.ours)
        with self.assertRaises(nbd.Error):
            self.read_over_tls(a, self.foreign)
        # Half of them does not do, and changes nothing.
        place(self.foreign, "key")
        hang_up("event=tls.reload_failed")
        self.read_over_tls(a, self.ours).shutdown()
        place(self.foreign)
        hang_up("event=tls.read_again")
        self.read_over_tls(a, self.foreign).shutdown()
        with self.assertRaises(nbd.Error):
            self.read_over_tls(a, self.ours)
        self.assertEqual(bytes(old.pread(4096, 0))[:6], b"secret", "who was connected stays so")
        old.shutdown()


if __name__ == "__main__":
    harness.main()
