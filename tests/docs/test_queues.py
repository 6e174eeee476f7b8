"""docs/reference/queues.md has a row for each queue, as it is declared."""

from __future__ import annotations

from tests.docs.pages import ROOT, table
from tests.docs.queue_rows import line, rows

PAGE = ROOT / "docs" / "reference" / "queues.md"


def test_the_page_has_the_row_of_every_queue_and_no_other() -> None:
    documented, declared = table(PAGE, "The queues"), rows()
    missing = "\n".join(line(row) for row in declared if row not in documented)
    assert not missing, f"docs/reference/queues.md needs:\n{missing}"
    assert documented == declared, "docs/reference/queues.md has a row too many, or another order than the registry"
