"""The table of transitions."""

from tocsin.session.phases import TRANSITIONS, ConnectionPhase


def test_every_phase_can_be_reached_and_every_phase_can_end() -> None:
    """The table of transitions has no dead end except `ENDED`."""
    reached = {ConnectionPhase.NEW}
    while len(reached) < len(following := reached.union(*(TRANSITIONS[phase] for phase in reached))):
        reached = following
    assert reached == set(ConnectionPhase) == TRANSITIONS.keys()
    for phase in set(ConnectionPhase) - {ConnectionPhase.ENDED}:
        assert ConnectionPhase.ENDED in TRANSITIONS[phase]
