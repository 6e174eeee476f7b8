"""What counts as a page, a resync and a column."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.graph import calendar, columns, contacts, files
from shared.graph.delta import is_resync, read_page
from shared.graph.errors import AnswerLost, GraphError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"value": None},
        {"value": {}},
        {"value": [{}]},
        {"value": [{"id": 5}]},
        {"value": [], "@odata.nextLink": 5},
        {"value": [], "@odata.deltaLink": ""},
        {"value": [], "@odata.nextLink": "a", "@odata.deltaLink": "b"},
    ],
)
def test_what_is_no_page_is_not_taken_for_an_empty_one(body: dict[str, Any]) -> None:
    with pytest.raises(AnswerLost):
        read_page(body)


def test_both_kinds_of_tombstones_are_told_from_items() -> None:
    page = read_page(
        {
            "value": [
                {"id": "a", "@removed": {"reason": "changed"}},
                {"id": "b", "deleted": {"state": "deleted"}},
                {"id": "c", "deleted": None},
            ],
            "@odata.deltaLink": "d",
        }
    )
    assert [change.removed for change in page.changes] == [True, True, False]
    assert (page.next_link, page.delta_link) == (None, "d")


@pytest.mark.parametrize(
    ("status", "codes", "expected"),
    [
        (410, (), True),
        (410, ("Gone",), True),
        (400, ("SyncStateNotFound",), True),
        (404, ("itemNotFound", "syncStateInvalid"), True),
        (400, ("ResyncRequired",), True),
        (400, ("BadRequest",), False),
        (404, ("ErrorItemNotFound",), False),
        (503, ("resyncRequired",), False),
    ],
)
def test_when_a_set_is_read_anew(status: int, codes: tuple[str, ...], expected: bool) -> None:
    assert is_resync(GraphError(status, codes, "")) is expected


@given(st.dictionaries(st.sampled_from(sorted({key for key, _ in calendar.COLUMNS.values()})), JSON))
def test_no_event_breaks_the_columns(item: dict[str, Any]) -> None:
    found = calendar.columns(item)
    assert set(found) - {"raw"} == {name for name, (key, _) in calendar.COLUMNS.items() if key in item}
    assert found["raw"] == item


@given(st.dictionaries(st.sampled_from(sorted({key for key, _ in contacts.COLUMNS.values()})), JSON))
def test_no_contact_breaks_the_columns(item: dict[str, Any]) -> None:
    assert set(contacts.columns(item)) >= {"raw"}


@given(st.dictionaries(st.sampled_from(sorted({key for key, _ in files.COLUMNS.values()} | {"folder"})), JSON))
def test_no_file_breaks_the_columns(item: dict[str, Any]) -> None:
    assert files.columns(item)["is_folder"] is (item.get("folder") is not None)


def test_links_that_let_anybody_in_are_not_kept() -> None:
    item = {"id": "a", "@microsoft.graph.downloadUrl": "https://x/?tempauth=secret", "@content.downloadUrl": "y"}
    assert columns.stored(item) == {"id": "a"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"dateTime": "2026-12-01T08:00:00.0000000", "timeZone": "UTC"}, "2026-12-01T08:00:00+00:00"),
        ({"dateTime": "2026-12-01T08:00:00", "timeZone": "Europe/Berlin"}, "2026-12-01T07:00:00+00:00"),
        ({"dateTime": "2026-12-01T08:00:00", "timeZone": "Pacific Standard Time"}, None),
        ({"dateTime": "2026-12-01T08:00:00", "timeZone": "../../etc/passwd"}, None),
        ({"dateTime": "0001-01-01T00:00:00", "timeZone": "UTC"}, None),
        ({"dateTime": "soon", "timeZone": "UTC"}, None),
        ({"dateTime": None}, None),
        (None, None),
        ("2026-12-01", None),
    ],
)
def test_a_time_with_its_zone(value: Any, expected: str | None) -> None:
    assert columns.zoned(value) == expected


def test_the_window_moves_when_a_month_of_it_has_passed() -> None:
    now = datetime(2026, 11, 25, 10, tzinfo=UTC)
    start, end = calendar.window(now)
    assert (start, end) == ("2026-10-26T00:00:00Z", "2027-11-25T00:00:00Z")
    assert not calendar.is_over(end, datetime(2026, 12, 24, tzinfo=UTC))
    assert calendar.is_over(end, datetime(2026, 12, 26, tzinfo=UTC))
