"""The program of a Sail server: `python -m lakehouse_utils.spark._sail_server`, started by `sail.Sail`.

It prints the port that it listens on, and ends when its standard input is closed. That happens however the program that
started it ends.
"""

import signal
import sys

from pysail.spark import SparkConnectServer

_STOP_TIMEOUT_S = 5


def main() -> None:
    """Serve until the standard input is closed."""
    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    sys.stdout.write(f"{server.listening_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()
    if sys.platform != "win32":
        signal.alarm(_STOP_TIMEOUT_S)  # `stop` waits for running tasks, without a limit; the alarm ends the process
    server.stop()


if __name__ == "__main__":
    main()
