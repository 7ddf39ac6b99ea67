"""Philox4x32-10: random numbers without a state, four 32-bit words for each counter under a key.

    L, R -> hi(R M) ^ k ^ L', lo(R M)      ten rounds over two such pairs; the key grows by a Weyl constant in between

Source: Salmon, Moraes, Dror, Shaw 2011, Parallel random numbers: as easy as 1, 2, 3, whose ten rounds pass every test
of TestU01's BigCrush; the words are those of its authors' library Random123.

Words are uint64 whose lower halves count. What a product leaves above is cut where it is multiplied next: compilers
make one instruction of that, in vectors too.
"""

import numpy as np

from .mathematics import inlined

_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@inlined
def low(word):
    """The 32 bits that count."""
    return word & _WORD


@inlined
def _round(c, k0, k1):
    p0, p1 = low(c[0]) * _M0, low(c[2]) * _M1
    return (p1 >> _HALF) ^ c[1] ^ k0, p1, (p0 >> _HALF) ^ c[3] ^ k1, p0


@inlined
def _two_rounds(c, k0, k1):
    return _round(_round(c, k0, k1), low(k0 + _W0), low(k1 + _W1))


@inlined
def philox(c0, c1, c2, c3, k0, k1):
    """The four words of counter c under key k: uint64 below 2^32, but of the results the lower halves alone count."""
    two = np.uint64(2)
    d0, d1 = two * _W0, two * _W1
    c = _two_rounds((c0, c1, c2, c3), k0, k1)
    k0, k1 = low(k0 + d0), low(k1 + d1)
    c = _two_rounds(c, k0, k1)
    k0, k1 = low(k0 + d0), low(k1 + d1)
    c = _two_rounds(c, k0, k1)
    k0, k1 = low(k0 + d0), low(k1 + d1)
    c = _two_rounds(c, k0, k1)
    k0, k1 = low(k0 + d0), low(k1 + d1)
    return _two_rounds(c, k0, k1)
