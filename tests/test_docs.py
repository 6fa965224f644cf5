"""The documents are consistent: every link has its target, and every promise its test."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "server/*.md", "client/*.md", "deploy/*.md", "tests/**/README.md")
    for path in TOP.glob(pattern)
    if "node_modules" not in path.parts
)
LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)")
PROMISED = re.compile(r"`(?:tests/)?([a-z_/]+\.py)(?:::(test_[a-z0-9_]+))?`")


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", document.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_every_link_has_its_target(document: Path) -> None:
    for name, anchor in LINK.findall(document.read_text()):
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), anchor


def test_decisions_are_numbered_without_gaps_and_their_headings_repeat_the_number() -> None:
    decisions = sorted((TOP / "docs" / "decisions").glob("*.md"))
    assert [path.name[:4] for path in decisions] == [
        f"{number:04}" for number in range(1, len(decisions) + 1)
    ]
    for path in decisions:
        assert path.read_text().startswith(f"# {path.name[:4]}: "), path.name


@pytest.mark.parametrize("page", ["state.md", "operate.md"])
def test_every_promise_has_its_test(page: str) -> None:
    """By its name; whether the test holds the promise is for people to see."""
    promised = PROMISED.findall((TOP / "docs" / page).read_text())
    assert len(promised) > 20
    for file, name in promised:
        text = (TOP / "tests" / file).read_text()
        assert not name or re.search(rf"(?m)^(async )?def {name}\(", text), f"{file}::{name}"


def test_every_test_that_the_threat_model_names_exists() -> None:
    """By its file, and by its name if it has one."""
    text = (TOP / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[a-z_/]+\.py)(?:::(test_[a-z0-9_]+))?`", text)
    assert len(named) > 60
    assert len(named) == text.count("`tests/")
    for file, name in named:
        content = (TOP / file).read_text()
        assert not name or re.search(rf"(?m)^(async )?def {name}\(", content), f"{file}::{name}"
