"""The one place for signals: a request to stop becomes a flag that the loop reads between steps.

SIGTERM, SIGUSR1, SIGUSR2 (what schedulers send before they take a machine away) and SIGINT
(Ctrl-C) ask for a stop. A second SIGINT ends the process at once.

A command watches them from its first moment (`watch`, `watch_interrupt`), in a thread of its own:
the main thread does not answer while it loads libraries or compiles. Where nothing is to be saved
the process ends there and then.

One process: these signals set the flag. Several processes: SIGTERM belongs to JAX's preemption
service, which spreads the notice and lets every process stop after the same step; a SIGTERM
handler of our own would silently disable it, so the other signals are turned into SIGTERM.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from feedseg.runtime.errors import INTERRUPTED, Stopped

_NAMES = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT")
_ASKS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]  # Windows has not all
_CLEANING_S = 3.0  # for an interrupted command to remove what it has begun
_INTERRUPTED = 130
_current: list["Stop"] = []  # that is in effect


# A command from its start -----------------------------------------------------------------------


def watch() -> None:
    """From now on a request to stop ends the process with code 75, unless a `Stop` is to save.

    For the entry point of a training, in the main thread and before anything is imported.
    """
    for number in _ASKS:
        signal.signal(number, lambda *_: None)
    _listen(_end_unless_saving)


def watch_interrupt() -> None:
    """From now on Ctrl-C ends the process within seconds, whatever it is doing.

    Its exception comes first, so that what was begun is removed. For the entry point of a command
    that is no training; one that holds a `Stop` answers by itself.
    """
    signal.signal(signal.SIGINT, _interrupt)
    shown = sys.unraisablehook
    sys.unraisablehook = lambda what: INTERRUPTED.is_set() or shown(what)
    _listen(_end_if_stuck)


def _interrupt(number, frame) -> NoReturn:
    INTERRUPTED.set()  # the exception may come out as another one, of an import for example
    raise KeyboardInterrupt


def _listen(answer: Callable[[int], None]) -> None:
    """Call `answer` with the number of each signal, in a thread."""
    ours, systems = socket.socketpair()
    systems.setblocking(False)
    signal.set_wakeup_fd(systems.fileno(), warn_on_full_buffer=False)

    def work(_kept=systems) -> None:
        while received := ours.recv(64):
            for number in received:
                if number in _ASKS:
                    answer(number)

    threading.Thread(target=work, name="signals", daemon=True).start()


def _end_unless_saving(number: int) -> None:
    stop = _current[-1] if _current else None
    if stop and not stop.ends_at_once():
        return
    text = f"stopped by {signal.Signals(number).name}; nothing was left to save: run again"
    for tell in stop.farewells if stop else ():
        with contextlib.suppress(Exception):
            tell(Stopped(text))
    _leave(text, Stopped.exit_code)


def _end_if_stuck(number: int) -> None:
    if number != signal.SIGINT or _current:
        return
    timer = threading.Timer(_CLEANING_S, _leave, ("interrupted", _INTERRUPTED))
    timer.daemon = True
    timer.start()


def _leave(text: str, code: int) -> NoReturn:
    os.write(2, f"feedseg: {text}\n".encode())
    os._exit(code)


# A training -------------------------------------------------------------------------------------


class Stop:
    """Context in which signals are caught: `with Stop(processes) as stop: ... stop.requested()`.

    processes: number of processes of the run; with more than one,
    `jax.distributed.initialize` must have been called before. Outside the main thread, where
    Python allows no handlers, signals keep their effect. The former handlers come back at the end.
    to_save: whether there is anything that is not on the disk; while there is not, a signal ends a
    process that watches (`watch`) at once, after `farewells` were called with the error.
    """

    def __init__(self, processes: int = 1):
        self.signal_name = ""  # of the first signal received, for the message
        self.to_save = False
        self.farewells: list[Callable[[Stopped], None]] = []
        self._processes = processes
        self._calls = 0
        self._former = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in _ASKS if self._processes == 1 else _ASKS[1:]:
                self._former[number] = signal.signal(number, self._receive)
        _current.append(self)
        return self

    def __exit__(self, *exception) -> None:
        _current.remove(self)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def ends_at_once(self) -> bool:
        """Whether a signal may end the process here; one of several ends with the others."""
        return not self.to_save and self._processes == 1

    def requested(self) -> bool:
        """Whether the run should save and stop now; call it after every step or dispatch.

        With several processes all must call it equally often: it turns True for all of them
        after the same call.
        """
        if self._processes == 1:
            return bool(self.signal_name)
        from jax.experimental import multihost_utils

        # The service needs consecutive numbers; optimizer steps may jump, calls do not.
        self._calls += 1
        return multihost_utils.reached_preemption_sync_point(self._calls)

    def _receive(self, number, frame) -> None:
        if number == signal.SIGINT:
            # The system's own action: it works even while a program is being compiled.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if self.to_save:
                _say("stopping after this step; press Ctrl-C again to end at once")
        self.signal_name = self.signal_name or signal.Signals(number).name
        if self._processes > 1:
            os.kill(os.getpid(), signal.SIGTERM)


def _say(text: str) -> None:
    """A line on stderr, past Python's buffers, which are not safe inside a handler."""
    os.write(2, f"\n{text}\n".encode())
