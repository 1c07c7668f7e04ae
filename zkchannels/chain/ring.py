"""Pure part of following a chain: which block to start from, what belongs to one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zkchannels.chain.model import Block, Log

KEEP = 256  # newest blocks that are known one by one; deeper, only ends of ranges are
SMALL_RANGE = 128  # blocks whose headers are fetched in one batch
LONGEST_RING = 16384  # a node that never tells of finality must not fill the memory
LARGE_RANGE = 4096  # blocks whose logs are asked for at once, where headers are not needed


class MovedError(Exception):
    """The chain changed while it was read: what was read does not fit together. Look again."""


@dataclass(frozen=True, slots=True)
class Range:
    """Blocks to read in one step; `contiguous`: with the header of each, not of the last only."""

    first: int
    last: int
    contiguous: bool

    @property
    def headers(self) -> Sequence[int]:
        """Return the numbers of the headers to fetch."""
        return range(self.first if self.contiguous else self.last, self.last + 1)


def next_range(known: int, head: int, *, largest: int = LARGE_RANGE) -> Range | None:
    """Return what to read after block `known`, oldest first; None when nothing is missing."""
    first = known + 1
    if first > head:
        return None
    recent = max(head - KEEP + 1, 0)
    if first < recent:
        return Range(first, min(first + largest - 1, recent - 1), contiguous=False)
    return Range(first, min(first + SMALL_RANGE - 1, head), contiguous=True)


def common_ancestor(ours: Sequence[Block], theirs: Mapping[int, bytes]) -> Block | None:
    """Return our newest block whose hash is the one they have at its number."""
    for block in reversed(ours):
        if theirs.get(block.number) == block.hash:
            return block
    return None


def branch_hashes(wanted: Sequence[int], found: Sequence[Block | None]) -> dict[int, bytes]:
    """Return the hashes of a node's blocks at the numbers wanted, in ascending order.

    Raises MovedError unless they are all there and on one branch: a node that has lost or mixed up
    its blocks is no sign of a reorganisation.
    """
    blocks: dict[int, Block] = {}
    for number, block in zip(wanted, found, strict=True):
        if block is None or block.number != number:
            raise MovedError
        before = blocks.get(number - 1)
        if before is not None and before.hash != block.parent_hash:
            raise MovedError
        blocks[number] = block
    return {number: block.hash for number, block in blocks.items()}


def check_headers(
    parent: Block | None, wanted: Range, headers: Sequence[Block | None]
) -> list[Block]:
    """Return the headers of a range if they are all there and follow each other.

    Raises MovedError otherwise. `parent` is the block before the range, if it is known.
    """
    blocks: list[Block] = []
    for number, block in zip(wanted.headers, headers, strict=True):
        if block is None or block.number != number:
            raise MovedError
        previous = blocks[-1] if blocks else parent
        adjacent = previous is not None and previous.number == number - 1
        if adjacent and previous is not None and block.parent_hash != previous.hash:
            raise MovedError
        blocks.append(block)
    return blocks


def check_logs(first: int, last: int, hashes: Mapping[int, bytes], logs: Sequence[Log]) -> None:
    """Check that logs lie in the range asked for and in the blocks we know by hash.

    Raises MovedError otherwise.
    """
    for log in logs:
        if not first <= log.block_number <= last:
            raise MovedError
        if hashes.get(log.block_number, log.block_hash) != log.block_hash:
            raise MovedError


def final_number(head: int, confirmations: int | str, tagged: int | None, before: int) -> int:
    """Return the newest final block: what the node's tag says, or that deep below the head.

    A block with n confirmations has n - 1 blocks above it. Finality only goes forward, also when
    another node has heard of less.
    """
    if isinstance(confirmations, int):
        found = head - confirmations + 1
    else:
        found = -1 if tagged is None else tagged
    return max(before, min(found, head))


def oldest_to_keep(blocks: Sequence[Block], final: int) -> int:
    """Return the number below which blocks may be forgotten.

    Kept are the newest ones and all that are not final, with the one they stand on.
    """
    newest = blocks[-1].number
    wanted = max(min(newest - KEEP, final), newest - LONGEST_RING)
    return max((block.number for block in blocks if block.number <= wanted), default=0)
