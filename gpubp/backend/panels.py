"""Which matrices of a recording lie in panels (kernels/panels.py): those that are gathered and then read by columns."""

from __future__ import annotations

from collections.abc import Sequence

from .accesses import Access, by_columns
from .launch import Launch


def lay_in_panels(launches: Sequence[Launch], team: int) -> list[tuple[Access, ...]]:
    """Has matrices lie in a panel for each of `team` members where they can; what each launch accesses then.

    They can where all launches that touch them share out their columns, and the first of these writes them. Between
    replays such a matrix is for nobody else to read.
    """
    accesses = [launch.accesses for launch in launches]
    columns = {
        k: by_columns(launch.columns[0]) for k, launch in enumerate(launches) if launch.columns is not None
    }
    _tell(launches, columns, 0)
    seen: set[int] = set()
    for k, matrix in columns.items() if team > 1 else ():
        if matrix.start in seen or not any(
            access.written and _same(access, matrix) for access in accesses[k]
        ):
            continue
        seen.add(matrix.start)
        users = [j for j, touched in enumerate(accesses) if any(_meet(access, matrix) for access in touched)]
        if users[0] == k and all(j in columns and _alone(columns[j], matrix, accesses[j]) for j in users):
            _tell(launches, users, team)
            for j in users:
                accesses[j] = tuple(_by_columns(access, columns[j]) for access in accesses[j])
    return accesses


def _tell(launches: Sequence[Launch], which: Sequence[int] | dict[int, Access], panels: int) -> None:
    for k in which:
        found = launches[k].columns
        assert found is not None
        launches[k].row[found[1]] = panels


def _alone(own: Access, matrix: Access, accesses: Sequence[Access]) -> bool:
    """Whether a launch touches nothing of that matrix but `own`, whose columns it shares out, from the same byte on."""
    return own.start == matrix.start and all(
        _same(access, own) or not _meet(access, matrix) for access in accesses
    )


def _by_columns(access: Access, own: Access) -> Access:
    return (
        Access(own.start, own.stop, access.written, own.owner, access.late) if _same(access, own) else access
    )


def _same(a: Access, b: Access) -> bool:
    return (a.start, a.stop) == (b.start, b.stop)


def _meet(a: Access, b: Access) -> bool:
    return a.start < b.stop and b.start < a.stop
