"""How many requests for sessions that do not exist an address may make."""

from tocsin_server.config.limit_options import LimitOptions
from tocsin_server.core.admission import BURST_SECONDS
from tocsin_server.core.session_guesses import SessionGuesses

RATE = 5
BURST = RATE * BURST_SECONDS


def guesses(rate: int = RATE) -> SessionGuesses:
    return SessionGuesses(LimitOptions(address_connect_rate=rate))


def taken(of: SessionGuesses, key: str, count: int, now: float = 1) -> int:
    return sum(of.take(key, now) for _ in range(count))


def test_an_address_has_a_burst_and_then_a_rate() -> None:
    """Each address has its own."""
    limited = guesses()
    assert taken(limited, "198.51.100.7", BURST + 10) == BURST
    assert taken(limited, "198.51.100.8", BURST + 10) == BURST
    assert taken(limited, "198.51.100.7", 20, now=2) == RATE


def test_requests_for_sessions_that_exist_cost_nothing() -> None:
    limited = guesses()
    for _ in range(10 * BURST):
        assert limited.take("198.51.100.7", 1)
        limited.give_back("198.51.100.7")
    assert taken(limited, "198.51.100.7", BURST + 10) == BURST


def test_a_request_counts_before_its_outcome_is_known() -> None:
    """So many requests at once are no way around the limit."""
    limited = guesses()
    assert taken(limited, "198.51.100.7", BURST) == BURST
    assert not limited.take("198.51.100.7", 1)
    limited.give_back("198.51.100.7")
    assert taken(limited, "198.51.100.7", 2) == 1


def test_without_an_address_or_a_rate_there_is_no_limit() -> None:
    assert taken(guesses(), "", 1000) == 1000
    limited = guesses(0)
    assert taken(limited, "198.51.100.7", 1000) == 1000
    limited.give_back("198.51.100.7")
