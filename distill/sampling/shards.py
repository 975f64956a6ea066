"""Which of several machines asks a prompt: by the hash of what is asked, so that order, number and ids do not matter.

Knows nothing about prompts or runs.
"""

from __future__ import annotations


def in_shard(asked: str, shard: str | None) -> bool:
    """Whether what hashes to `asked` (records.asked_hash) belongs to the shard `I/N`; to None belongs everything.

    A prompt that stands twice, under whatever id, is in one shard alone, and so are all of its samples.
    """
    if shard is None:
        return True
    number, shards = numbers(shard)
    return shard_of(asked, shards) == number


def shard_of(asked: str, shards: int) -> int:
    """The number, from 1, of the shard out of `shards` that asks this. 64 bits of the hash: shards of one size."""
    return int(asked[:16], 16) % shards + 1


def numbers(shard: str) -> tuple[int, int]:
    """`I/N` as I and N."""
    number, _, shards = shard.partition("/")
    return int(number), int(shards)
