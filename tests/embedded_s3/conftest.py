import shutil

import pytest
from support.s3_servers import kill_all

from lakehouse_utils import embedded_s3


@pytest.fixture
def state_dir(tmp_path):
    """The state folder of a checkout, for a server that only this test uses, and that ends with it."""
    path = tmp_path / "state"
    yield path
    kill_all(path)
    embedded_s3.stop(path)
    shutil.rmtree(path, ignore_errors=True)
