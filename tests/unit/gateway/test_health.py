"""What is said of clocks that differ; that they never count is tested where freshness is."""

from drey_gateway.domain import findings
from drey_gateway.domain.live import Shard

SECOND = 10**9


def test_clocks_that_differ_are_told_with_both_hosts() -> None:
    shards = [Shard(n) for n in range(3)]
    for shard, owner, skew in zip(shards, ("a:1", "b:2", "b:3"), (SECOND // 2, 8, -9), strict=True):
        shard.report.owner = owner
        shard.health.heard(0)
        shard.health.synced(True, 0)
        shard.health.skew_ns = skew * (SECOND if abs(skew) < 100 else 1)
    found = findings.of_shards(shards, {}, 0, "gate")
    (told,) = [f for f in found if "clock" in f.text]
    assert "of b is 9.0 s behind that of gate" in told.text
    assert "b and gate" in told.remedy
    shards[2].health.skew_ns = 0
    (told,) = [f for f in findings.of_shards(shards, {}, 0, "gate") if "clock" in f.text]
    assert "of b is 8.0 s ahead of that of gate" in told.text
