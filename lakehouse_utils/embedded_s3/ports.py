"""The ports of the embedded S3 server."""

from lakehouse_utils.processes import WELL_KNOWN_PORTS, Ports, is_free, sample_ports

COMPONENTS = ("s3", "filer", "volume", "master", "admin")  # each has an HTTP port and a gRPC port
UNUSED = "webdav.port"  # SeaweedFS requires it to be free although WebDAV is off
_ADMIN_GRPC_DISTANCE = 10_000  # SeaweedFS accepts the admin server's gRPC port at this distance only


def pick_ports() -> Ports | None:
    """Choose free ports, by the names of SeaweedFS's flags. Returns None if too few are free.

    They are below 28,000: Linux uses higher ports for outgoing connections, which come and go.
    """
    free = (port for port in sample_ports(range(18_000, 25_000)) if is_free(port))
    pairs = ((port, port + _ADMIN_GRPC_DISTANCE) for port in sample_ports(range(15_000, 18_000)))
    free_pairs = (pair for pair in pairs if WELL_KNOWN_PORTS.isdisjoint(pair) and all(map(is_free, pair)))
    try:
        ports = {f"{name}.port{kind}": next(free) for name in COMPONENTS[:-1] for kind in ("", ".grpc")}
        ports[UNUSED] = next(free)
        ports["admin.port"], ports["admin.port.grpc"] = next(free_pairs)
    except StopIteration:
        return None
    return ports
