"""A list is filtered, sorted and cut into pages as its URL says."""

from datatunerx.console.listing import Asked, Column, listing

COLUMNS = [
    Column("name", "Name", lambda row: row[0]),
    Column("score", "Score", lambda row: row[1], number=True),
]
ROWS = [
    (f"job-{n:03}", None if n % 5 == 0 else n / 100, "Failed" if n == 42 else "Succeeded") for n in range(120)
]


def page(**query):
    asked = Asked.of({key: str(value) for key, value in query.items()})
    return listing(
        ROWS, COLUMNS, asked, text=lambda r: r[0], state=lambda r: r[2], order=lambda r: r[2] != "Failed"
    )


def test_what_needs_somebody_comes_first_and_the_rest_keeps_its_order():
    assert [row[0] for row in page().rows[:3]] == ["job-042", "job-000", "job-001"]


def test_rows_without_a_value_come_last_in_either_direction():
    assert page(sort="score").rows[0][1] == 0.01 and page(sort="-score").rows[0][1] == 1.19
    assert [page(sort=s, page=3).rows[-1][1] for s in ("score", "-score")] == [None, None]


def test_words_and_state_narrow_it_and_the_counts_stay():
    found = page(q="JOB 04", state="Failed")
    assert [row[0] for row in found.rows] == ["job-042"]
    assert (found.total, found.found, found.states["Failed"]) == (120, 1, 1)


def test_a_page_past_the_end_is_the_last_and_nonsense_is_the_default():
    assert page(page=99, size=25).asked.page == 5
    assert page(page="x", size=7).asked == Asked()
    assert page(q="04", sort="name").asked.url(page=2) == "?q=04&sort=name&page=2"
