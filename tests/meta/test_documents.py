"""What the documents show is what the program does."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_formats_page_shows_the_golden_documents() -> None:
    text = (ROOT / "docs/formats.md").read_text()
    shown = re.findall(r"<!-- golden: (\S+) -->\n```json\n(.*?)\n```", text, re.DOTALL)
    assert [name for name, _ in shown] == ["http.json", "file.json"]
    for name, document in shown:
        assert document == (ROOT / "tests/golden/store" / name).read_text().strip()


def test_the_architecture_page_names_files_that_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`((?:cafs/)?[a-z]+/\w+\.py)`", text))
    assert len(named) > 30
    assert not [name for name in named if not (ROOT / "cafs" / name.removeprefix("cafs/")).exists()]


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"
