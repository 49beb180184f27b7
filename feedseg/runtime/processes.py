"""Several processes that train one model: who they are, meeting, agreeing, and ending together.

One process, the usual case, starts nothing here and every function is as good as absent. Several
are found by the variables that their launcher sets (`find`); they meet at a coordinator that
process 0 runs. All run the same program on the same data; process 0 alone speaks and writes.
Where they must agree on something that only one can do, such as taking the lock, process 0 does it
and the others get its answer (`from_first`). A failure of one ends all, with one message and one
exit code (`Processes`).
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from feedseg.runtime import console, errors
from feedseg.runtime.errors import FeedsegError, UserError
from feedseg.runtime.launcher import ALONE, ProcessPlace, find, port

PATIENCE_S = 120  # to wait for all processes to be there
HEARTBEAT_S = 20  # a process silent for so long is dead; the others ended in 12 to 19 s
_SHUTDOWN_S = 30
_POLL_S = 0.5  # between two looks at whether another process has failed
_GRACE_S = 2  # for a process to come to the same end by itself
_FOREVER_MS = 7 * 24 * 3600 * 1000  # who is waited for may be at work; that it lives is watched
_END = "feedseg/end"


# Meeting --------------------------------------------------------------------------------------


def start() -> None:
    """Meet the other processes, if there are any; before anything touches the devices.

    Raises UserError if the environment is incomplete or the coordinator has no address or port.
    If not all are there within two minutes, the process ends with a message and code 2.
    """
    if place := find(os.environ):
        connect(place)


def connect(place: ProcessPlace, patience_s: float = PATIENCE_S) -> None:
    """Meet the other processes at their coordinator."""
    _check_coordinator(place)
    host = place.coordinator.rpartition(":")[0]
    name = "no_grpc_proxy"  # a proxy for the web is no way to the coordinator
    os.environ[name] = ",".join(filter(None, (os.environ.get(name), host.strip("[]"))))
    import jax

    jax.config.update("jax_check_proxy_envs", False)
    late = threading.Timer(patience_s, _give_up, (place, patience_s))  # JAX would abort
    late.daemon = True
    late.start()
    jax.distributed.initialize(
        *place[:3],
        local_device_ids=place.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=int(patience_s) + 60,
        heartbeat_timeout_seconds=HEARTBEAT_S,
        shutdown_timeout_seconds=_SHUTDOWN_S,
    )
    late.cancel()


def _check_coordinator(place: ProcessPlace) -> None:
    """Raises UserError for an unknown host, and in process 0 for a port in use."""
    host, number = place.coordinator.rpartition(":")[0].strip("[]"), port(place.coordinator)
    try:
        socket.getaddrinfo(host, number)
        if place.process == 0:
            family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
            both = family == socket.AF_INET6
            socket.create_server(("", number), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise UserError(
            f"coordinator {place.coordinator}: {error.strerror or error}; set FEEDSEG_COORDINATOR "
            "to the host of process 0 and a free port, host:port"
        ) from None


def _give_up(place: ProcessPlace, patience_s: float) -> None:
    _say(
        f"process {place.process} of {place.processes} has waited {patience_s:.0f} s at "
        f"{place.coordinator} and not all were there; check that all were started and reach that "
        f"address; {ALONE}"
    )
    os._exit(UserError.exit_code)


# Agreeing -------------------------------------------------------------------------------------


def _jax() -> Any:
    """What JAX knows of the processes, None before it is imported."""
    module = sys.modules.get("jax._src.distributed")  # there is no public way to its store
    return module.global_state if module and module.global_state.client else None


def count() -> int:
    """Number of processes of this run; touches no device."""
    return state.num_processes if (state := _jax()) else 1


def index() -> int:
    """Which of them this one is; touches no device."""
    return state.process_id if (state := _jax()) else 0


def is_first() -> bool:
    """Whether this process speaks and writes."""
    return index() == 0


def from_first(action: Callable, *args) -> Any:
    """What `action(*args)` returns or raises in process 0, in all of them; done there alone.

    All processes must call it in the same order. Values travel as JSON, a FeedsegError as its kind
    and text; any other exception is process 0's and ends all of them (`Processes`).
    """
    state = _jax()
    if not state:
        return action(*args)
    _turn[0] += 1
    key = f"feedseg/answer/{_turn[0]}"
    if is_first():
        try:
            value = action(*args)
        except FeedsegError as error:
            failure = [type(error).__name__, *map(str, error.args)]
            state.client.key_value_set(key, json.dumps({"error": failure}))
            raise
        state.client.key_value_set(key, json.dumps({"value": value}))
        return value
    answer = json.loads(state.client.blocking_key_value_get(key, _FOREVER_MS))
    if "error" in answer:
        name, *lines = answer["error"]
        raise getattr(errors, name)(*lines)
    return answer["value"]


_turn = [0]  # number of answers so far


def all_agree(ok: bool = True) -> bool:
    """Whether `ok` holds in every process; all of them wait here for each other."""
    state = _jax()
    if not state:
        return ok
    key = f"feedseg/vote/{_turn[0]}"
    if not is_first():
        state.client.key_value_set(f"{key}/{index()}", json.dumps(ok))

    def verdict() -> bool:
        voters = [f"{key}/{other}" for other in range(1, count())]
        votes = [state.client.blocking_key_value_get(voter, _FOREVER_MS) for voter in voters]
        return ok and all(map(json.loads, votes))

    return from_first(verdict)


def check_same(what: str, text: str) -> None:
    """Raises UserError in a process whose `text` is not that of process 0; what: its name."""
    host, first = from_first(lambda: (socket.gethostname(), text))
    if first != text:
        raise UserError(
            f"{what} of process {index()} on {socket.gethostname()} is not that of process 0 on "
            f"{host}; start all processes with the same arguments, code and data"
        )


# Ending ---------------------------------------------------------------------------------------


class Processes:
    """Context of a run: meets the other processes, if there are any, and ends with them.

    An exception that leaves it in one of several processes is announced to all; each comes to
    the same end by itself within two seconds or is ended, with the exit code of the first, which
    alone prints its message. So no exception gets past this context then.
    """

    def __enter__(self) -> "Processes":
        start()
        self._leaving = threading.Event()
        if count() > 1:
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        if count() == 1:
            return
        if error is not None:
            self._leaving.set()
            fail(error)
        _jax().client.wait_at_barrier("feedseg/done", _FOREVER_MS)  # process 0 may be drawing
        self._leaving.set()
        self._watcher.join()
        import jax

        jax.distributed.shutdown()

    def _watch(self) -> None:
        """End this process when another has announced its failure."""
        while not self._leaving.wait(_POLL_S):
            code = _announced()
            if code is not None and not self._leaving.wait(_GRACE_S):
                _leave(code)


def fail(error: BaseException) -> NoReturn:
    """End all processes because of an error in this one; alone it is raised."""
    if count() == 1:
        raise error
    code, ours = _announce(_exit_code(error))
    if ours:
        _tell(error)
    _leave(code)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 130
    code = error.code if isinstance(error, SystemExit) else getattr(error, "exit_code", 1)
    return code if isinstance(code, int) else int(bool(code))


def _announced() -> int | None:
    """The exit code of the first process that has failed."""
    try:
        return int(_jax().client.key_value_try_get(_END))
    except RuntimeError:  # there is none
        return None


def _announce(code: int) -> tuple[int, bool]:
    """The exit code of all, and whether it is ours: the first to announce one decides."""
    try:
        _jax().client.key_value_set(_END, str(code))
        return code, True
    except RuntimeError:
        earlier = _announced()
        return (code, True) if earlier is None else (earlier, False)


def _tell(error: BaseException) -> None:
    if isinstance(error, FeedsegError):
        _say(str(error))
    elif isinstance(error, KeyboardInterrupt):
        _say("interrupted")
    elif not isinstance(error, SystemExit):
        traceback.print_exception(error)
        _say(f"process {index()} of {count()} failed, or lost another one; run again")


def _say(text: str) -> None:
    console.warn(f"feedseg: {text}")


def _leave(code: int) -> NoReturn:
    """End this process at once, process 0 last: the others lose their coordinator with it."""
    state = _jax()
    with contextlib.suppress(RuntimeError):
        if index():
            state.client.key_value_set(f"feedseg/gone/{index()}", "")
        else:
            for other in range(1, count()):
                state.client.blocking_key_value_get(f"feedseg/gone/{other}", 5000)
            time.sleep(0.2)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)  # what JAX does at the exit waits for processes that are gone
