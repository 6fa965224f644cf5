"""What happened to nodes, and what came of it."""

from tocsin_demo.incidents import KEPT, Journal


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def told(journal: Journal) -> list[tuple[str, str, list[tuple[str, float]]]]:
    return [
        (one.name, one.kind, [(step.what, step.seconds) for step in one.steps]) for one in journal.incidents
    ]


def test_what_comes_of_an_incident_has_its_time() -> None:
    clock = Clock()
    journal = Journal(clock)
    journal.begin("node-1", "kill")
    clock.now += 3.25
    journal.note("node-1", "lapsed")
    clock.now += 2
    journal.note("node-1", "back")
    assert told(journal) == [("node-1", "kill", [("lapsed", 3.25), ("back", 5.25)])]
    assert journal.incidents[0].at == 1_000_000


def test_it_comes_once_and_only_of_what_it_can_come_of() -> None:
    journal = Journal(Clock())
    journal.note("node-1", "back")
    journal.begin("node-1", "deafen")
    journal.begin("node-2", "drain")
    for what in ("deaf", "deaf", "back", "lapsed"):
        journal.note("node-1", what)
        journal.note("node-2", what)
    assert told(journal) == [
        ("node-1", "deafen", [("deaf", 0)]),
        ("node-2", "drain", [("back", 0), ("lapsed", 0)]),
    ]


def test_it_comes_of_the_last_incident_of_that_node() -> None:
    journal = Journal(Clock())
    journal.begin("node-1", "kill")
    journal.begin("node-2", "kill")
    journal.begin("node-1", "kill")
    journal.note("node-1", "back")
    assert [steps for _, _, steps in told(journal)] == [[], [], [("back", 0)]]


def test_the_latest_are_kept_and_numbers_go_on() -> None:
    journal = Journal(Clock())
    for _ in range(KEPT + 3):
        journal.begin("node-1", "end")
    assert [one.number for one in journal.incidents] == list(range(4, KEPT + 4))
