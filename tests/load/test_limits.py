"""The limits of the operating system."""

import pytest

from tocsin_load.limits import PORTS_PER_ADDRESS, SPARE_FILES, TooManyFiles, processes_for, sources_for


def test_the_number_of_processes_follows_from_the_limit_of_open_files() -> None:
    assert processes_for(10_000, 0, 1_000 + SPARE_FILES) == 10
    assert processes_for(100, 0, 1_024) == 1


def test_too_few_open_files_are_explained_with_a_remedy() -> None:
    with pytest.raises(TooManyFiles, match=r"5000 connections in 2 .* the limit is 1064: use --processes 5"):
        processes_for(5_000, 2, 1_000 + SPARE_FILES)


def test_many_local_connections_come_from_several_addresses() -> None:
    assert sources_for(PORTS_PER_ADDRESS, ["http://127.0.0.1:8000"]) == []
    assert sources_for(PORTS_PER_ADDRESS + 1, ["http://127.0.0.1:8000"]) == ["127.0.0.1", "127.0.0.2"]
    two = ["http://127.0.0.1:8000", "http://127.0.0.1:8001"]
    assert sources_for(2 * PORTS_PER_ADDRESS, two) == []
    assert sources_for(10 * PORTS_PER_ADDRESS, ["http://push.example"]) == []
