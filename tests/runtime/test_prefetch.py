"""Items made ahead of their use: order, errors, memory and the end of the thread."""

import threading
import time

import pytest

from feedseg.runtime.prefetch import ahead


def threads() -> int:
    return sum(thread.name == "ahead" for thread in threading.enumerate())


def test_items_come_in_order_and_the_thread_ends():
    assert list(ahead(range(20))) == list(range(20))
    assert list(ahead([])) == []
    assert threads() == 0


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise MemoryError("too much")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(MemoryError, match="too much"):
        next(found)
    assert threads() == 0


def test_no_more_than_the_depth_is_made_ahead():
    made = []

    def items():
        for number in range(10):
            made.append(number)
            yield number

    found = ahead(items(), depth=2)
    next(found)
    time.sleep(0.1)
    assert len(made) <= 4  # the one in use, two waiting, one that waits for its place
    found.close()
    assert threads() == 0 and len(made) <= 5


def test_the_next_item_is_made_while_one_is_used():
    second = threading.Event()

    def items():
        yield 1
        second.set()
        yield 2

    found = ahead(items())
    assert next(found) == 1
    assert second.wait(10)  # without asking for it
    assert list(found) == [2]


def test_a_generator_is_closed_with_it():
    closed = []

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(threading.current_thread().name)

    found = ahead(items())
    next(found)
    found.close()
    assert threads() == 0 and closed == ["ahead"]
