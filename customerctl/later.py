"""Does something if a call takes long, without the cost of importing `threading`."""

from __future__ import annotations

import _thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Later:
    """Runs `action` in a thread after `seconds`, unless it is cancelled before."""

    __slots__ = ("_action", "_cancelled", "_running", "_seconds")

    def __init__(self, seconds: float, action: Callable[[], object]) -> None:
        self._seconds = seconds
        self._action = action
        self._cancelled = _thread.allocate_lock()
        self._cancelled.acquire()
        self._running = _thread.allocate_lock()
        _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        if self._cancelled.acquire(True, self._seconds):
            return
        import signal

        # An interrupt that another thread takes would not wake the main one from its waiting; the
        # threads that the action starts inherit this.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        with self._running:
            # Only now, as a cancellation may have come between the two locks.
            if self._cancelled.locked():
                self._action()

    def cancel(self) -> None:
        """Do not begin any more; returns once an action that began has ended."""
        with self._running:
            if self._cancelled.locked():
                self._cancelled.release()
