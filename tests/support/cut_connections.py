"""A TCP proxy that loses answers: it withholds what the server sends, and cuts the connection a moment later."""

import socket
import threading
import time
from contextlib import suppress

_WITHHELD_S = 0.5  # long enough for the server to finish a small query whose answer does not arrive


class CutConnections:
    """Passes connections on to a port of this machine. `port` is its own, `cuts` the number of answers lost so far.

    The connection is cut at each number in `at`, which counts the server's packets from the start.
    """

    def __init__(self, target_port: int, at: set[int]) -> None:
        self.cuts = 0
        self._target_port, self._at, self._packets = target_port, at, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no further connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which ends `accept`
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target_port))
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, True), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, from_server: bool = False) -> None:
        with suppress(OSError):
            while packet := source.recv(1 << 16):
                self._packets += from_server
                if from_server and self._packets in self._at:
                    time.sleep(_WITHHELD_S)
                    self.cuts += 1
                    break
                target.sendall(packet)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
