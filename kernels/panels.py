"""Matrices in panels: the columns of each member in a piece of memory of their own.

Where members share out the columns of a matrix, each of its rows is cut. A core that walks along its part of a row
fetches on into that of the next member, which that one writes: between cores that share no cache such lines are the
dearest. In panels each member's columns are a matrix of its own, panel behind panel:

    row-major     a a a b b b      in 2 panels   a a a
                  a a a b b b                    a a a
                                                 b b b
                                                 b b b

A row of a launch says in how many panels an operand lies; 0 and 1 stand for row-major. (The panels of small products
are something else, copies of a few columns.)
"""

from numba.extending import register_jitable

from .team import cut, granule


@register_jitable
def panel_columns(columns, panel, panels):
    """(start, stop): the columns of one of the panels of a matrix."""
    return cut(columns, granule(columns), panel, panels)


@register_jitable
def place(address, size, rows, columns, start, stop, panels):
    """(address, stride) of the columns from start to stop of a matrix of numbers of `size` bytes.

    The stride is that from row to row, in numbers. In panels, start and stop have to be those of a panel.
    """
    if panels > 1:
        return address + size * rows * start, max(stop - start, 1)
    return address + size * start, max(columns, 1)
