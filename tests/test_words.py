"""The word list finds a forbidden word in any form, and permits only what has a reason."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import words
from tests.words import Allowed, findings, unused

TOP = Path(__file__).parents[1]


def found(text: str, file: str = "docs/page.md", allowed: tuple[Allowed, ...] = ()) -> list[tuple[int, str]]:
    return [(finding.line, finding.word) for finding in findings(file, text, allowed)]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Whoever connects", "whoever"),
        ("the gap was mended.", "mended"),
        ("def _let_in(self):", "let in"),
        ("this.isWitness = true", "witness"),
        ("class HTTPStage:", "stage"),
        ("STAGE = 1", "stage"),
        ("no-more", "no more"),
        ("It runs. So that it ends, stop it.", "So that"),
    ],
)
def test_a_forbidden_word_is_found_in_each_of_its_forms(text: str, word: str) -> None:
    assert found(text) == [(1, word)]


@pytest.mark.parametrize(
    "text",
    ["a single message", "SINGLE = 1", "recommend", "bought", "a warehouse", "it waits, so that it is read"],
)
def test_a_word_that_only_contains_a_forbidden_one_is_permitted(text: str) -> None:
    assert found(text) == []


def test_a_finding_names_its_line_and_what_to_write() -> None:
    (finding,) = findings("docs/page.md", "one\ntwo whence\n", ())
    assert str(finding) == "docs/page.md:2: whence: write from where"


@pytest.mark.parametrize(
    "text", ["# it is no\n# more than that", "it is no\n   more", " * it is no\n * more"]
)
def test_a_phrase_is_found_across_two_lines(text: str) -> None:
    assert found(text) == [(1, "no more")]


@pytest.mark.parametrize("text", ["There is no. More of it", "| no | More |", "It is no\n\nMore"])
def test_words_of_two_sentences_cells_or_paragraphs_are_no_phrase(text: str) -> None:
    assert found(text) == []


def test_the_name_of_a_file_is_checked() -> None:
    assert found("", "tests/stage.py") == [(0, "stage")]


def test_an_exception_holds_in_its_files_for_its_phrase_only() -> None:
    allowed = (Allowed("docs/*", "event listener", "the DOM's name"),)
    assert found("an event listener", allowed=allowed) == []
    assert found("a listener", allowed=allowed) == [(1, "listener")]
    assert found("an event listener", "README.md", allowed=allowed) == [(1, "listener")]


def test_an_exception_that_no_file_needs_is_named() -> None:
    needed, in_vain = Allowed("docs/*", "event listener", "…"), Allowed("docs/*", "house", "…")
    assert unused({"docs/page.md": "an event listener"}, (needed, in_vain)) == [in_vain]


def test_every_exception_has_a_reason() -> None:
    assert all(entry.reason for entry in words.ALLOWED)


def test_the_command_ends_with_1_if_there_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "unused", lambda texts: [])
    monkeypatch.setattr(words, "files", lambda: ["tests/words.py"])
    assert words.main() == 0
    monkeypatch.setattr(words, "ALLOWED", ())
    monkeypatch.setattr(words, "findings", lambda file, text: findings(file, text, ()))
    assert words.main() == 1


def test_the_command_reads_every_file_in_git() -> None:
    ended = subprocess.run([sys.executable, "-m", "tests.words"], cwd=TOP, capture_output=True, check=False)
    assert ended.returncode in (0, 1)
    assert ended.stderr == b""
    assert {"Makefile", "docs/glossary.md", "server/tocsin_server/app.py"} <= set(words.files())
