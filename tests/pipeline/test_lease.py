"""The lease: one program gets it, and a crash of its holder blocks no other program for longer than its duration."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import lease
from lakehouse_utils.pipeline.lease import Lease, LeaseHeldError


def content(lake: Lake) -> dict:
    key = lake.key("_pipeline", "test.lease")
    return json.loads(lake.s3.get_object(Bucket=lake.bucket, Key=key)["Body"].read())


def wins(one: Lease) -> bool:
    try:
        one.acquire()
    except LeaseHeldError:
        return False
    return True


def test_lease_is_held_by_one_and_released(lake):
    """While it is held, others get an error that names the holder; after that, the next one gets it at once."""
    with lease.hold(lake, "test") as held:
        with pytest.raises(
            LeaseHeldError, match=r"^process \d+ on .+ holds the lease s3://.+/_pipeline/test\.lease\. "
        ) as caught:
            lease.Lease(lake, "test", 60).acquire()
        assert caught.value.holder
        assert not held.is_lost
    with lease.hold(lake, "test"):
        pass


def test_lease_of_a_crashed_holder_ends_by_itself(lake):
    """A holder that ends without releasing it blocks others only until it expires."""
    Lease(lake, "test", 2).acquire()
    other, started = Lease(lake, "test", 60), time.monotonic()
    assert not wins(other)
    while not wins(other):
        assert time.monotonic() - started < 30
        time.sleep(0.05)


@pytest.mark.parametrize("is_expired", [False, True], ids=["absent", "expired"])
def test_one_of_many_gets_the_lease(lake, is_expired):
    """Of many programs that try at the same time, one gets a lease that is not there, or has expired."""
    for number in range(5):
        if is_expired:
            Lease(lake, f"test{number}", 0).acquire()
        leases = [Lease(lake, f"test{number}", 60) for _ in range(12)]
        with ThreadPoolExecutor(len(leases)) as pool:
            assert sum(pool.map(wins, leases)) == 1


def test_lease_that_was_taken_over_is_lost(lake):
    """A holder that was paused for too long learns that it lost the lease, and does not take it from the other."""
    paused = Lease(lake, "test", 0)
    paused.acquire()
    with lease.hold(lake, "test") as other:
        paused.renew()
        assert paused.is_lost
        paused.release()
        assert not wins(Lease(lake, "test", 60))
        assert not other.is_lost


def test_lease_is_renewed_while_it_is_held(lake):
    """It does not expire while its holder works for longer than its duration."""
    with lease.hold(lake, "test", 3) as held:
        first, renewals = content(lake)["renewed"], set()
        while len(renewals - {first}) < 8:  # which takes two durations
            renewals.add(content(lake)["renewed"])
            assert not wins(Lease(lake, "test", 60))
            assert not held.is_lost


def test_lost_answers_do_not_lose_the_lease(lake):
    """If a write succeeds but its answer does not arrive, the client repeats it, and the lease is still its own."""
    one = Lease(lake, "test", 60)
    one.acquire()
    one.acquire()  # as the client does
    stale_etag = one._etag
    one.renew()
    one._etag = stale_etag
    one.renew()
    assert not one.is_lost
    one.renew()
    assert not one.is_lost


def test_object_that_is_no_lease_expires_too(lake):
    """What someone else has put under the name of the lease is respected for the usual duration."""
    key = lake.key("_pipeline", "test.lease")
    lake.s3.put_object(Bucket=lake.bucket, Key=key, Body=b"not JSON")
    assert not wins(Lease(lake, "test", 60))


def test_renewing_ends_with_the_block(lake):
    """No thread is left behind."""
    before = threading.active_count()
    with lease.hold(lake, "test"):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
