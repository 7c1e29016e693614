"""What the design's table of deaths says of a monitor."""

from __future__ import annotations

import signal
import socket
import time

import grpc
import numpy as np
import pytest
from redis.asyncio import Redis

from drey.events.v1.values_pb2 import Heartbeat
from drey.internal.control.v1.control_service_pb2 import GetOwnedShardsRequest, ReleaseShardsRequest
from drey_core.pages import PAGE_SHIFT, shard_of_page
from drey_core.values import State
from drey_runtime.migrate import apply_migrations
from drey_stack import Postgres
from drey_testing.fixtures_monitor import CHANNELS, LIVING, MonitorRig, eventually

CHANGING = 700
"""A channel whose value grows."""
SHARDS = pytest.mark.parametrize("shards", [1, 3])


async def beat_of(rig, channel=CHANGING):
    """Of the shard that the channel is in."""
    beats = await rig.image.read_heartbeats(rig.shards)
    return beats[shard_of_page(channel >> PAGE_SHIFT, rig.shards)]


async def beats_of(rig):
    return await rig.image.read_heartbeats(rig.shards)


async def test_image_goes_on_without_nats(rig, ioc):
    rig.start_monitor()
    await rig.wait_settled()
    await rig.nats.kill()
    before = (await rig.read([700])).value(0)

    async def goes_on():
        return (await rig.read([700])).value(0) > before + 5

    await eventually(goes_on, "the image goes on")
    seen = len(rig.listener.batches)
    last = rig.listener.batches[-1][0]
    await rig.nats.start()

    async def published():
        return len(rig.listener.batches) > seen

    await eventually(published, "batches again")
    first = rig.listener.batches[seen][0]
    assert first.epoch == last.epoch
    assert first.sequence > last.sequence + 1


@SHARDS
async def test_starts_without_nats_and_redis(rig, ioc):
    await rig.nats.kill()
    await rig.valkey.kill()
    monitor = rig.start_monitor()

    async def owns():
        return monitor.log.read_text().count(" settled: ") == rig.shards

    await eventually(owns, "each shard is owned")
    await rig.valkey.start()
    await rig.wait_states(LIVING, State.CONNECTED)
    await rig.nats.start()

    async def heard():
        return bool(rig.listener.batches and rig.listener.beats)

    await eventually(heard, "batches")


async def test_emptied_redis_is_written_again(rig, ioc):
    rig.start_monitor()
    await rig.wait_settled()
    epoch = (await beat_of(rig)).epoch
    await rig.valkey.kill()
    await rig.valkey.start()
    await rig.wait_states(LIVING, State.CONNECTED, 10)
    columns = await rig.read(CHANNELS)
    assert columns.value(5) == b"caf\xe9"

    async def directory():
        (version,) = await rig.image.directory_versions(1)
        pages = await rig.image.catalog_pages([1, 2, 3])
        metadata = await rig.image.metadata_pages([1])
        if version is None or not metadata:
            return False
        return version.pages == [1, 2, 3] and len(pages) == 3 and metadata[0].units[7] == b"mA"

    await eventually(directory, "the directory")

    async def beats():
        return await beat_of(rig) is not None

    await eventually(beats, "a heartbeat")
    assert (await beat_of(rig)).epoch == epoch


@SHARDS
async def test_flushed_redis_is_written_again(rig, ioc):
    rig.start_monitor()
    await rig.wait_settled()
    redis = Redis.from_url(rig.valkey.url)
    for _ in range(3):
        await redis.flushall()
        took = await rig.wait_states(LIVING, State.CONNECTED, 10)
        assert took < 3
    await redis.aclose()


async def test_older_epoch_stops_at_once(rig, ioc):
    """A greater epoch in Redis, from nobody: the owner stops, and takes the shard above it."""
    monitor = rig.start_monitor()
    await rig.wait_settled()
    old = await beat_of(rig)
    old.epoch += 10
    await rig.image.write_heartbeat(old)

    async def above():
        return (await beat_of(rig)).epoch > old.epoch

    await eventually(above, "a greater epoch")
    assert "newer owner" in monitor.log.read_text()
    await rig.wait_settled()
    epochs = [b.epoch for b, _ in rig.listener.batches]
    assert epochs == sorted(epochs)
    assert set(epochs) == {old.epoch - 10, (await beat_of(rig)).epoch}


async def test_newer_owner_heard_on_nats_stops_the_older(rig, ioc):
    monitor = rig.start_monitor()
    await rig.wait_settled()
    rival = await beat_of(rig)
    rival.epoch += 5
    await rig.bus.publish(rig.bus.full_subject("heartbeats", 0), rival.SerializeToString())

    async def above():
        return (await beat_of(rig)).epoch > rival.epoch

    await eventually(above, "a greater epoch")
    assert "newer owner" in monitor.log.read_text()


@SHARDS
async def test_killed_monitor_is_replaced(rig, ioc):
    first = rig.start_monitor(BALANCE="false")
    await rig.wait_settled()
    second = rig.start_monitor(BALANCE="false")

    async def waits():
        return "is up" in second.log.read_text()

    await eventually(waits, "the standby")
    old, former = await beat_of(rig), await beats_of(rig)
    states = []
    seen = len(rig.listener.batches)
    first.signal(signal.SIGKILL)

    async def value():
        fresh = [b for b, c in rig.listener.batches[seen:] if 700 in c.key]
        return any(b.epoch > old.epoch for b in fresh)

    await eventually(value, "a value of the new owner")

    async def fresh():
        columns = await rig.read(LIVING)
        states.append(columns.state.copy())
        beats = await beats_of(rig)
        return all(b.epoch > o.epoch and b.settled for b, o in zip(beats, former, strict=True))

    await eventually(fresh, "a new owner of each shard")
    # the last values stand while the new owner looks: the machine never vanishes
    assert (np.array(states) == State.CONNECTED).all()
    rows = [b.epoch for b, c in rig.listener.batches if 700 in c.key]
    assert rows == sorted(rows)
    assert rows[-1] > old.epoch


@SHARDS
async def test_stopped_monitor_hands_over_at_once(rig, ioc):
    first = rig.start_monitor(BALANCE="false")
    await rig.wait_settled()
    rig.start_monitor(BALANCE="false")
    second = rig.monitors[1]

    async def known():
        return (
            f"another monitor is there: {socket.gethostname()}:{second.pid}"
            in first.log.read_text()
        )

    await eventually(known, "the owner knows of the standby")
    old = await beats_of(rig)
    first.signal(signal.SIGTERM)

    async def taken():
        beats = await beats_of(rig)
        return all(beat.epoch > former.epoch for beat, former in zip(beats, old, strict=True))

    await eventually(taken, "a new owner of each shard")
    assert await first.ended() == 0
    assert "left with 0 shards" in first.log.read_text(), "nobody waited for its end"


async def test_continued_process_publishes_nothing_old(rig, ioc):
    """Stopped (SIGSTOP) while another takes the shard, continued: no batch of the older epoch."""
    first = rig.start_monitor()
    await rig.wait_settled()
    first.signal(signal.SIGSTOP)
    stopped_ns = time.time_ns()
    taken = await beat_of(rig)

    async def silent():
        return time.time_ns() - (await beat_of(rig)).time_ns > 2_000_000_000

    await eventually(silent, "silence")
    taken.epoch += 3
    await rig.image.write_heartbeat(taken)
    first.signal(signal.SIGCONT)

    async def above():
        return (await beat_of(rig)).epoch > taken.epoch

    await eventually(above, "taken again")
    await rig.wait_settled()
    # one that was made before may have lain in its buffer
    made_since = [b for b, _ in rig.listener.batches if b.time_ns > stopped_ns]
    assert made_since and all(b.epoch > taken.epoch for b in made_since)


async def test_an_event_is_heard_between_two_looks_for_changes(rig, ioc):
    """With a minute between two looks, only the event can bring it."""
    rig.start_monitor(CATALOG_POLL="60")
    await rig.wait_settled()
    rig.directory.set([(265, "B")])
    await rig.announce()
    await rig.wait_states([265], State.CONNECTED, 55)


async def test_catalog_changes_come_without_a_restart(rig, ioc):
    rig.start_monitor()
    await rig.wait_settled()
    before = {c: len(rig.listener.rows_of(c)) for c in (256, 259)}
    rig.directory.set([(264, None), (265, "B"), (263, "A")])
    await rig.wait_states([265], State.CONNECTED)

    async def corrected():
        columns = await rig.read([263, 264])
        return columns.state[1] == State.ABSENT and columns.value(0) == 1.0

    await eventually(corrected, "the correction")
    # and a page is made where there was none
    rig.directory.set([(5000, "B")])
    await rig.announce()
    await rig.wait_states([5000], State.CONNECTED)
    assert {c: len(rig.listener.rows_of(c)) for c in before} == before
    batch, columns, row = rig.listener.rows_of(264)[-1]
    assert columns.state[row] == State.ABSENT
    assert batch.directory_version >= 2
    (version,) = await rig.image.directory_versions(1)
    assert 5000 >> 8 in version.pages
    assert version.catalog_version == rig.directory.version


@SHARDS
async def test_goes_on_by_the_image_without_the_directory_service(rig, ioc):
    first = rig.start_monitor()
    await rig.wait_settled()
    first.signal(signal.SIGTERM)
    await first.ended()
    await rig.stop_directory()
    second = rig.start_monitor()

    async def fresh():
        beats = await beats_of(rig)
        return all(beat.settled and beat.owner.endswith(f":{second.pid}") for beat in beats)

    await eventually(fresh, "the second settles")
    assert sum(beat.connected for beat in await beats_of(rig)) == len(LIVING)
    rig.directory.set([(265, "B")])
    await rig.start_directory()
    await rig.wait_states([265], State.CONNECTED, 5)


@SHARDS
async def test_ioc_dies_and_comes_back(rig, ioc):
    rig.start_monitor()
    await rig.wait_settled()
    before = await rig.read([261, 264])
    ioc.kill()
    try:
        await rig.wait_states(LIVING, State.DISCONNECTED)
        after = await rig.read([261, 264])
        assert after.value(0) == before.value(0)
        assert after.value(1) == before.value(1)

        async def counted():
            beats = await beats_of(rig)
            lost = sum(beat.disconnected for beat in beats)
            return lost == len(LIVING) and sum(beat.never_connected for beat in beats) == 1

        await eventually(counted, "the heartbeat counts")
    finally:
        ioc.start()
    await rig.wait_states(LIVING, State.CONNECTED, 60)


async def test_shards_are_released_by_call(rig, ioc):
    first = rig.start_monitor()
    await rig.wait_settled()
    stub, viewer = rig.control(first, "viewer")
    _, admin = rig.control(first, "admin")
    owned = await stub.GetOwnedShards(GetOwnedShardsRequest(), metadata=viewer, timeout=60)
    assert [(s.shard, s.channels) for s in owned.shards] == [(0, len(CHANNELS))]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ReleaseShards(ReleaseShardsRequest(), metadata=viewer, timeout=60)
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    answer = await stub.ReleaseShards(ReleaseShardsRequest(), metadata=admin, timeout=60)
    assert answer.released == 1

    async def none():
        got = await stub.GetOwnedShards(GetOwnedShardsRequest(), metadata=viewer, timeout=60)
        return not got.shards

    await eventually(none, "given up")
    again = await stub.ReleaseShards(ReleaseShardsRequest(), metadata=admin, timeout=60)
    assert again.released == 0
    old = await beat_of(rig)
    rig.start_monitor()

    async def taken():
        return (await beat_of(rig)).epoch > old.epoch

    await eventually(taken, "another owner")


async def test_shards_spread_by_limit(tmp_path, database_url, ioc):
    async with MonitorRig(tmp_path, database_url, shards=3) as rig:
        rig.directory.set(CHANNELS.items())
        rig.start_monitor(MAX_SHARDS="2")
        rig.start_monitor(MAX_SHARDS="2")
        await rig.wait_settled()
        await rig.wait_states(LIVING, State.CONNECTED)
        owners = [b.owner for b in await rig.image.read_heartbeats(3) if b is not None]
        assert sorted(owners.count(o) for o in set(owners)) == [1, 2]
        for batch, columns in rig.listener.batches:
            assert (shard_of_page(columns.key >> 8, 3) == batch.shard).all()


async def test_goes_on_without_postgres(tmp_path, ioc):
    async with Postgres(tmp_path / "pg", fsync=False) as postgres:
        await apply_migrations(postgres.url, ["drey_runtime"])
        async with MonitorRig(tmp_path, postgres.url) as rig:
            rig.directory.set(CHANNELS.items())
            rig.start_monitor()
            await rig.wait_settled()
            old = await beat_of(rig)
            await postgres.kill()
            before = (await rig.read([700])).value(0)

            async def goes_on():
                return (await rig.read([700])).value(0) > before + 20

            await eventually(goes_on, "the image goes on")
            assert (await beat_of(rig)).epoch == old.epoch
            await postgres.start()

            async def anew():
                beat = await beat_of(rig)
                _, stamps = await rig.image.read_pages([1, 2, 3])
                return beat.epoch > old.epoch and bool((stamps.epoch == beat.epoch).all())

            await eventually(anew, "the same owner under a new epoch")
            assert (await beat_of(rig)).owner == old.owner


@pytest.mark.parametrize("torn", [False, True])
async def test_pages_that_the_image_lost_are_written_again(rig, ioc, torn):
    monitor = rig.start_monitor()
    await rig.wait_settled()
    keys = [f"drey:page:{LIVING[0] >> 8}", "drey:catalog:1", "drey:metadata:1"]

    async def there():
        pages, _ = await rig.image.lost_pages([1, 2, 3])
        found = await rig.image.catalog_pages([1]) and await rig.image.metadata_pages([1])
        _, stamps = await rig.image.read_pages([LIVING[0] >> 8])
        return not pages and bool(found) and bool(stamps.epoch.all())

    await eventually(there, "all pages written")
    async with Redis.from_url(rig.valkey.url) as redis:
        if torn:
            whole = await redis.get(keys[0])
            assert isinstance(whole, bytes)
            await redis.set(keys[0], whole[:-7])
        else:
            await redis.delete(*keys)
        assert not await there()
        await eventually(there, "written again")
    await rig.wait_states(LIVING, State.CONNECTED)
    assert "the image lost" in monitor.log.read_text()


async def test_an_image_put_back_to_an_older_time_is_written_again(rig, ioc):
    rig.start_monitor()
    await rig.wait_settled()
    quiet = LIVING[0] >> 8
    async with Redis.from_url(rig.valkey.url) as redis:
        keys = [f"drey:page:{quiet}", "drey:shard:0:heartbeat"]
        old = await redis.mget(keys)
        _, before = await rig.image.read_pages([quiet])
        beat = await beat_of(rig)

        async def later():
            return (await beat_of(rig)).sequence > beat.sequence

        await eventually(later, "time goes on")
        await redis.mset(dict(zip(keys, old, strict=True)))

        async def again():
            _, after = await rig.image.read_pages([quiet])
            return after.sequence[0] > before.sequence[0]

        await eventually(again, "written again")


async def test_a_torn_directory_version_alone_is_written_again(rig, ioc):
    rig.start_monitor()
    await rig.wait_settled()

    async def there():
        return (await rig.image.directory_versions(1)) != [None]

    await eventually(there, "a directory")
    async with Redis.from_url(rig.valkey.url) as redis:
        await redis.set("drey:shard:0:directory", b"\xff")
    await eventually(there, "written again")


async def test_poison_on_the_bus_and_in_the_image_ends_nothing(rig, ioc):
    monitor = rig.start_monitor()
    await rig.wait_settled()
    before = await beat_of(rig)
    poison = Heartbeat(shard=0, epoch=2**63, sequence=2**64 - 1)
    far = Heartbeat(shard=0, epoch=2**60, sequence=1)
    for raw in (poison.SerializeToString(), far.SerializeToString(), b"\xff\x00", b""):
        await rig.bus.publish(rig.bus.full_subject("heartbeats", 0), raw)
    async with Redis.from_url(rig.valkey.url) as redis:
        await redis.set("drey:shard:0:epoch", b"9" * 25)
        await redis.set("drey:shard:0:heartbeat", poison.SerializeToString())
        await redis.set("drey:shard:0:directory", b"\xff")
        await redis.set("drey:page:1", b"\xff")

    async def goes_on():
        beat = await beat_of(rig)
        return beat is not None and beat.sequence > before.sequence + 5

    await eventually(goes_on, "the monitor goes on")
    assert (await beat_of(rig)).epoch == before.epoch
    assert monitor.process.poll() is None

    async def written_again():
        return (await rig.image.directory_versions(1)) != [None]

    await eventually(written_again, "the directory is written again")
    # whoever comes next is not stopped by it either
    monitor.process.kill()
    async with Redis.from_url(rig.valkey.url) as redis:
        await redis.set("drey:shard:0:epoch", b"9" * 20)
        await redis.set("drey:page:1", b"\xff")
        await redis.set("drey:catalog:1", b"\xff")
    rig.start_monitor()

    async def taken_over():
        beat = await beat_of(rig)
        return beat is not None and before.epoch < beat.epoch < 2**42 and beat.settled

    await eventually(taken_over, "a standby takes over")
    await rig.wait_states(LIVING, State.CONNECTED)
