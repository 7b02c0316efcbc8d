"""The ports of the embedded S3 server."""

from lakehouse_utils import processes
from lakehouse_utils.embedded_s3 import ports


def test_ports_avoid_outgoing_connections_and_well_known_numbers():
    """All eleven ports differ, are below Linux's range for outgoing connections, and are not well-known."""
    for _ in range(5):
        chosen = ports.pick_ports()
        assert len(set(chosen.values())) == 11
        assert all(15_000 <= port < 28_000 for port in chosen.values())
        assert chosen["admin.port.grpc"] == chosen["admin.port"] + 10_000
        assert not processes.WELL_KNOWN_PORTS & set(chosen.values())


def test_no_ports_are_chosen_when_too_few_are_free(monkeypatch):
    """None is returned when the free ports do not suffice."""
    monkeypatch.setattr(ports, "is_free", lambda port: port % 100 == 0 and port < 18_600)
    assert ports.pick_ports() is None
