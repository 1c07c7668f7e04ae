"""Which node is asked first: whatever they say, the order is total and a lone liar comes last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zkchannels.chain.model import Block
from zkchannels.chain.opinions import FORK, Opinion, Verdict, judge, number_to_compare

ONE, OTHER, THIRD = b"\1" * 32, b"\2" * 32, b"\3" * 32


def block(number: int) -> Block:
    """A head of that number; the rest does not matter here."""
    return Block(number, number.to_bytes(32), number.to_bytes(32), 12 * number, 7)


def verdict(*said: tuple[int, bytes], turn: int = 0) -> Verdict:
    """The verdict about nodes that say (head, hash at the number compared)."""
    opinions = [Opinion(node, block(head), at) for node, (head, at) in enumerate(said)]
    return judge(opinions, turn=turn)


def test_the_configured_order_where_all_agree() -> None:
    """Nodes on one chain that are about as far keep their order."""
    assert verdict((100, ONE), (102, ONE), (99, ONE)) == Verdict(order=(0, 1, 2))


def test_a_node_that_is_behind_comes_after_the_others() -> None:
    """A node that stands still is asked after those that go on, the furthest behind last."""
    assert verdict((100, ONE), (50, ONE), (150, ONE)).order == (2, 0, 1)


def test_the_majority_comes_first() -> None:
    """One node on a chain of its own comes last, however high its head is."""
    found = verdict((1000, OTHER), (100, ONE), (101, ONE))
    assert found == Verdict(order=(1, 2, 0), disagree=True)


def test_without_a_majority_the_sides_take_turns() -> None:
    """Two nodes that contradict each other are asked first in turn, and that is said."""
    first = verdict((100, ONE), (100, OTHER), turn=6)
    second = verdict((100, ONE), (100, OTHER), turn=7)
    assert first == Verdict(order=(0, 1), disagree=True, undecided=True)
    assert second == Verdict(order=(1, 0), disagree=True, undecided=True)


def test_the_fork_of_a_moment_is_no_disagreement() -> None:
    """Compared is a block below every head by more than honest nodes differ."""
    assert number_to_compare([block(100), block(90)]) == 90 - FORK
    assert number_to_compare([block(3)]) == 0


@given(
    st.lists(st.tuples(st.integers(0, 2**62), st.sampled_from([ONE, OTHER, THIRD])), min_size=1),
    st.integers(0, 1000),
)
def test_total(said: list[tuple[int, bytes]], turn: int) -> None:
    """Every node has exactly one place, and a chain with more nodes than any other is first."""
    found = verdict(*said, turn=turn)
    assert sorted(found.order) == list(range(len(said)))
    sizes = sorted(
        (sum(at == side for _, at in said) for side in (ONE, OTHER, THIRD)), reverse=True
    )
    side = said[found.order[0]][1]
    assert sum(at == side for _, at in said) == sizes[0]
    assert found.undecided is (sizes[0] == sizes[1])
    assert found.disagree is (sizes[1] > 0)
