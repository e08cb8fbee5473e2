"""`chat2api/accounts/queue.py`."""

import random

from chat2api.accounts.queue import FairQueue, Waiter


def make(length: int = 512, length_each: int = 64) -> FairQueue[str, str]:
    return FairQueue(length=length, length_each=length_each)


def join(queue: FairQueue[str, str], owner: str, want: str) -> Waiter[str, str]:
    waiter = queue.join(owner, want)
    assert waiter is not None
    return waiter


def wants(queue: FairQueue[str, str]) -> list[str]:
    """Call everybody and give their wants in that order."""
    order = []
    while (waiter := queue.call(lambda want: True)) is not None:
        order.append(waiter.want)
    return order


async def test_lines_take_turns_and_each_line_keeps_its_order() -> None:
    queue = make()
    for number in range(4):
        join(queue, "many", f"many {number}")
    join(queue, "few", "few 0")
    join(queue, "some", "some 0")
    join(queue, "some", "some 1")

    assert wants(queue) == ["many 0", "few 0", "some 0", "many 1", "some 1", "many 2", "many 3"]
    assert len(queue) == 0


async def test_one_whose_want_does_not_suit_is_passed_over_and_keeps_its_place() -> None:
    queue = make()
    join(queue, "a", "x")
    join(queue, "a", "y")
    join(queue, "b", "x")

    called = queue.call(lambda want: want == "y")

    assert called is not None and called.want == "y"
    assert queue.call(lambda want: want == "z") is None
    assert wants(queue) == ["x", "x"]


async def test_R8_the_queue_is_bounded_for_one_and_for_all() -> None:
    queue = make(length=5, length_each=3)
    first = [queue.join("greedy", str(number)) for number in range(4)]
    others = [queue.join(f"other {number}", "x") for number in range(3)]

    assert [waiter is not None for waiter in first] == [True, True, True, False]
    assert [waiter is not None for waiter in others] == [True, True, False]

    assert first[0] is not None
    queue.leave(first[0])
    queue.leave(first[0])
    assert len(queue) == 4
    assert queue.join("late", "x") is not None


async def test_whoever_is_settled_already_is_not_called() -> None:
    queue = make()
    gone, there = join(queue, "a", "gone"), join(queue, "a", "there")
    gone.turn.cancel()

    assert queue.call(lambda want: True) is there
    assert [waiter.want for waiter in queue] == ["gone"]


async def test_nobody_is_lost_and_nobody_is_called_twice() -> None:
    rng = random.Random(8)
    queue, inside, called = make(length_each=512), set[Waiter[str, str]](), set[Waiter[str, str]]()
    for _ in range(3000):
        match rng.randrange(3):
            case 0 if (waiter := queue.join(rng.choice("abc"), rng.choice("xyz"))) is not None:
                inside.add(waiter)
            case 1 if inside:
                left = rng.choice(sorted(inside, key=lambda one: (one.owner, one.want)))
                queue.leave(left)
                inside.discard(left)
            case _:
                letter = rng.choice("xyz")
                if (next_one := queue.call(lambda want, letter=letter: want == letter)) is not None:  # type: ignore[misc]  # a default binds the loop's value
                    assert next_one in inside and next_one not in called
                    inside.discard(next_one)
                    called.add(next_one)
        assert len(queue) == len(inside) == len(set(queue))
    assert called
