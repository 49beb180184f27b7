"""Work on the next item while the last one is used: an iterator in a thread of its own."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item], depth: int = 1) -> Iterator[Item]:
    """The items in their order, computed in a thread, at most `depth` of them waiting.

    What goes wrong in the thread is raised here, after the items before it. The thread ends when
    the items do, or with this iterator; it never keeps a program from ending.
    """
    waiting: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put((item, None))
                if stopped.is_set():
                    return
            put((_END, None))
        except BaseException as error:  # handed on, whatever it is
            put((_END, error))
        finally:
            if close := getattr(items, "close", None):  # a generator's files, at once
                close()

    thread = threading.Thread(target=work, daemon=True, name="ahead")
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
            del item  # the thread may need its memory
    finally:
        stopped.set()
        thread.join()
