"""Tables of pages that scripts write: each stands between two comments, and is replaced whole."""


def with_table(page: str, table: str) -> str:
    """A page with a table in the place of the one that begins and ends with the same lines.

    Raises:
        ValueError: where the page has no such place.
    """
    begin, *_, end = table.splitlines()
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"the page has no place for a table: {begin} … {end}")
    return before + table + after
