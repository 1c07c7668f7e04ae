"""The pulse of a loop."""

from __future__ import annotations

from zkchannels.service.pulse import Pulse


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_is_silent_from_its_last_sign_on() -> None:
    """Silence counts from the beginning of a piece of work that does not end."""
    clock = _Clock()
    pulse = Pulse(clock=clock)
    pulse.work()
    clock.now = 107.0
    assert pulse.silence == 7.0
    pulse.work()
    assert pulse.silence == 0.0


def test_a_loop_that_rests_is_not_silent() -> None:
    """A rest counts from its announced end; one without end, or a loop not begun, never."""
    clock = _Clock()
    pulse = Pulse(clock=clock)
    clock.now = 1e9
    assert pulse.silence == 0.0
    pulse.rest(60)
    clock.now += 59
    assert pulse.silence == 0.0
    clock.now += 3
    assert pulse.silence == 2.0
    pulse.rest()
    clock.now += 1e9
    assert pulse.silence == 0.0
