"""The S3 server that pip installs (SeaweedFS): one per checkout, started when it is first needed."""

from lakehouse_utils.embedded_s3.server import BUCKET, REGION, Server, ensure, full_disk, status, stop

__all__ = ["BUCKET", "REGION", "Server", "ensure", "full_disk", "status", "stop"]
