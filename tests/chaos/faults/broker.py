"""A broker that dies, forgets, and delivers twice, late, in another order or not at all."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import redis

from tests.chaos.faults.fault import Fault, Hit, Target


def restart(target: Target, *, keep: bool) -> Hit | None:
    """SIGKILL it and start it again, with or without what it held."""
    target.installation.broker.restart(keep=keep)
    return Hit()


def stay_down(target: Target) -> Hit | None:
    """It is gone for seconds, and comes back with nothing."""
    broker = target.installation.broker
    if not broker.service.kill(down_seconds=target.chance.uniform(1.0, 6.0)):
        return None
    broker.forget()
    return Hit()


def deliver_twice(target: Target) -> Hit | None:
    """Every message of the run once more, and every one that waits, as it is."""
    target.actor.act("ring again", target.run_id)
    with suppress(redis.RedisError):
        client = target.installation.broker.client
        for queue in target.installation.broker.queues():
            for message in client.lrange(queue, 0, -1):  # type: ignore[union-attr]
                client.lpush(queue, message)
    return Hit()


def shuffle(target: Target) -> Hit | None:
    """Those who wait are given out in another order."""
    client, moved = target.installation.broker.client, 0
    with suppress(redis.RedisError):
        for queue in target.installation.broker.queues():
            with client.pipeline(transaction=True) as together:
                together.lrange(queue, 0, -1)
                together.delete(queue)
                messages = list(together.execute()[0])
            target.chance.shuffle(messages)
            if messages:
                client.rpush(queue, *messages)
            moved += len(messages)
    return Hit() if moved > 1 else None


def drop(target: Target) -> Hit | None:
    """What waits is lost, and so is what was handed out and not acknowledged."""
    client, lost = target.installation.broker.client, 0
    with suppress(redis.RedisError):
        for queue in [*target.installation.broker.queues(), b"unacked", b"unacked_index"]:
            lost += int(client.delete(queue))  # type: ignore[arg-type]
    return Hit() if lost else None


FAULTS = (
    Fault(name="broker restarted, data kept", weight=1.0, strike=partial(restart, keep=True)),
    Fault(name="broker restarted, data lost", weight=1.2, strike=partial(restart, keep=False)),
    Fault(name="broker gone for seconds", weight=0.7, strike=stay_down),
    Fault(name="messages twice", weight=1.5, strike=deliver_twice),
    Fault(name="messages reordered", weight=1.5, strike=shuffle),
    Fault(name="messages dropped", weight=1.5, strike=drop),
)
