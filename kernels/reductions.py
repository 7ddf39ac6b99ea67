"""Second stages of the column sums: partial results of the granules of rows, added in order."""

from numba.extending import register_jitable

from .team import granule, share


def granule_count(rows: int) -> int:
    """Granules that the rows of a matrix are cut into, at least 1; depends on their number alone."""
    return max(1, -(-rows // granule(rows)))


@register_jitable
def sum_blocks(partials, out, me, team):
    """out[j] = sum over k of partials[k, j], in the order of k; each member takes its share of the columns."""
    start, stop = share(out.shape[0], me, team)
    for j in range(start, stop):
        out[j] = partials[0, j]
    for k in range(1, partials.shape[0]):
        for j in range(start, stop):
            out[j] += partials[k, j]
