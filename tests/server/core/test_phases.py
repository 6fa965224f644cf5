"""The table of phases: each transition, and the error for all others."""

import itertools

import pytest

from tocsin_server.core.phases import TRANSITIONS, Cause, ImpossibleTransition, Phase, next_phase

STEPS = list(itertools.product(Phase, Cause))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0].name}-{step[1].name}")
def test_a_transition_is_in_the_table_or_impossible(step: tuple[Phase, Cause]) -> None:
    if step in TRANSITIONS:
        assert next_phase(*step) is TRANSITIONS[step]
    else:
        with pytest.raises(ImpossibleTransition, match=step[0].value):
            next_phase(*step)


def test_every_phase_but_the_first_is_reached_and_every_phase_but_the_last_is_left() -> None:
    reached, left = set(TRANSITIONS.values()), {phase for phase, _ in TRANSITIONS}
    assert reached == set(Phase) - {Phase.NEW}
    assert left == set(Phase) - {Phase.CLOSED}
