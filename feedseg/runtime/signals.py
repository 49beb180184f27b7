"""The one place for signals: a request to stop becomes a flag that the loop reads between steps.

SIGTERM, SIGUSR1, SIGUSR2 (what schedulers send before they take a machine away) and SIGINT
(Ctrl-C) ask for a stop. A second SIGINT ends the process at once.

One process: these signals set the flag. Several processes: SIGTERM belongs to JAX's preemption
service, which spreads the notice and lets every process stop after the same step; a SIGTERM
handler of our own would silently disable it, so the other signals are turned into SIGTERM.
"""

import os
import signal
import threading

_NAMES = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT")
_ASKS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]  # Windows has not all


class Stop:
    """Context in which signals are caught: `with Stop(processes) as stop: ... stop.requested()`.

    processes: number of processes of the run; with more than one,
    `jax.distributed.initialize` must have been called before. Outside the main thread, where
    Python allows no handlers, signals keep their effect. The former handlers come back at the end.
    """

    def __init__(self, processes: int = 1):
        self.signal_name = ""  # of the first signal received, for the message
        self._processes = processes
        self._calls = 0
        self._former = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in _ASKS if self._processes == 1 else _ASKS[1:]:
                self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

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
            _say("stopping after this step; press Ctrl-C again to end at once")
        self.signal_name = self.signal_name or signal.Signals(number).name
        if self._processes > 1:
            os.kill(os.getpid(), signal.SIGTERM)


def _say(text: str) -> None:
    """A line on stderr, past Python's buffers, which are not safe inside a handler."""
    os.write(2, f"\n{text}\n".encode())
