"""The incident log: which steps an incident gets, with which times, and which incidents are kept."""

from tocsin_demo.incidents import INCIDENT_LIMIT, IncidentLog


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def contents(log: IncidentLog) -> list[tuple[str, str, list[tuple[str, float]]]]:
    return [
        (incident.name, incident.kind, [(step.kind, step.seconds) for step in incident.steps])
        for incident in log.incidents
    ]


def test_a_step_has_the_time_since_the_incident() -> None:
    clock = Clock()
    log = IncidentLog(clock)
    log.begin("node-1", "kill")
    clock.now += 3.25
    log.add_step("node-1", "expired")
    clock.now += 2
    log.add_step("node-1", "restarted")
    assert contents(log) == [("node-1", "kill", [("expired", 3.25), ("restarted", 5.25)])]
    assert log.incidents[0].at == 1_000_000


def test_a_step_is_added_once_and_only_to_an_incident_that_can_have_it() -> None:
    log = IncidentLog(Clock())
    log.add_step("node-1", "restarted")
    log.begin("node-1", "deafen")
    log.begin("node-2", "drain")
    for kind in ("deaf", "deaf", "restarted", "expired"):
        log.add_step("node-1", kind)
        log.add_step("node-2", kind)
    assert contents(log) == [
        ("node-1", "deafen", [("deaf", 0)]),
        ("node-2", "drain", [("restarted", 0), ("expired", 0)]),
    ]


def test_a_step_is_added_to_the_latest_incident_of_the_node() -> None:
    log = IncidentLog(Clock())
    log.begin("node-1", "kill")
    log.begin("node-2", "kill")
    log.begin("node-1", "kill")
    log.add_step("node-1", "restarted")
    assert [steps for _, _, steps in contents(log)] == [[], [], [("restarted", 0)]]


def test_the_latest_incidents_are_kept_with_their_numbers() -> None:
    log = IncidentLog(Clock())
    for _ in range(INCIDENT_LIMIT + 3):
        log.begin("node-1", "end")
    assert [incident.number for incident in log.incidents] == list(range(4, INCIDENT_LIMIT + 4))
