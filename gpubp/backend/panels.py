"""Which matrices of a recording lie in panels (kernels/panels.py): those that are gathered and then read by columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .accesses import Access, by_columns
from .launch import Launch


def lay_in_panels(launches: Sequence[Launch], team: int) -> list[tuple[Access, ...]]:
    """Has matrices lie in a panel for each of `team` members where they can; what each launch accesses then.

    They can where all launches that touch them share out their columns: some write them, and others, behind these, read
    them as they were last written. The rows of the launches are told in place. Between replays such a matrix is for
    nobody else to read.
    """
    accesses = [launch.accesses for launch in launches]
    columns = {
        k: by_columns(launch.columns[0]) for k, launch in enumerate(launches) if launch.columns is not None
    }
    _tell(launches, list(columns), 0)
    written = {
        own.start: own for k, own in columns.items() if any(a.written and _same(a, own) for a in accesses[k])
    }
    for start, own in written.items() if team > 1 else ():
        place = replace(own, stop=max(other.stop for other in columns.values() if other.start == start))
        users = [k for k, touched in enumerate(accesses) if any(_meet(access, place) for access in touched)]
        if _by_columns_alone(users, place, columns, accesses):
            _tell(launches, users, team)
            for k in users:
                accesses[k] = tuple(_owned(access, columns[k]) for access in accesses[k])
    return accesses


def _by_columns_alone(
    users: Sequence[int], place: Access, columns: dict[int, Access], accesses: Sequence[Sequence[Access]]
) -> bool:
    """Whether each launch touches of that memory its own matrix alone, which is the one that was written there last."""
    written, read = None, False
    for k in users:
        touched = [access for access in accesses[k] if _meet(access, place)]
        if k not in columns or columns[k].start != place.start or len(touched) != 1:
            return False
        if not _same(touched[0], columns[k]):
            return False
        if touched[0].written:
            written = columns[k].owner
        elif columns[k].owner != written:
            return False
        read = read or not touched[0].written
    return read


def _tell(launches: Sequence[Launch], which: Sequence[int], panels: int) -> None:
    for k in which:
        found = launches[k].columns
        assert found is not None
        launches[k].row[found[1]] = panels


def _owned(access: Access, own: Access) -> Access:
    """The access, by columns where it is the matrix whose columns the launch shares out."""
    return replace(access, owner=own.owner) if _same(access, own) else access


def _same(a: Access, b: Access) -> bool:
    return (a.start, a.stop) == (b.start, b.stop)


def _meet(a: Access, b: Access) -> bool:
    return a.start < b.stop and b.start < a.stop
