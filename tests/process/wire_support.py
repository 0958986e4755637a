"""How much goes over the link between two nodes."""

import select
import socket
import threading


class Counter:
    """A port that leads to another one, and how many bytes went there."""

    def __init__(self, address):
        self.to = address.rsplit(":", 1)
        self.sent = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection((self.to[0], int(self.to[1])))
            except OSError:
                return
            threading.Thread(target=self.carry, args=(client, server), daemon=True).start()

    def carry(self, client, server):
        with client, server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    try:
                        piece = source.recv(1 << 20)
                        if not piece:
                            return
                        if source is client:
                            self.sent += len(piece)
                        (server if source is client else client).sendall(piece)
                    except OSError:
                        return

    def close(self):
        self.listener.close()
