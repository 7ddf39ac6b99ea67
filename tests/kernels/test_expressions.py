"""Scalar functions made of expressions: every operation in both types, packed loops, the disk cache."""

import os
import platform
import re
import subprocess
import sys
import textwrap
import warnings

import numba
import numpy as np
import pytest

from gpubp.kernels.expressions import scalar_function, source

X, C = ["symbol", "x"], ["constant", 1.5]
# over x, a constant, and results that depend on x (3) or not
EVERY = [
    X, C, ["constant", -0.25],
    ["add", 0, 1], ["sub", 3, 2], ["mul", 4, 0], ["div", 5, 1], ["neg", 6], ["abs", 7], ["add", 8, 1], ["pow", 9, 2],
    ["relu", 10], ["maximum", 11, 2], ["minimum", 12, 1], ["exp", 13], ["expm1", 13], ["log", 14], ["log1p", 14],
    ["sqrt", 17], ["tanh", 18], ["sigmoid", 19], ["softplus", 20], ["erf", 21], ["sin", 0], ["cos", 23],
    ["where", 24, 2, 22, 15], ["div", 25, 9], ["add", 26, 16],
    ["tanh_softplus", 0], ["d_tanh_softplus", 0], ["add", 27, 28], ["add", 30, 29],
]  # fmt: skip
REFERENCE = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "abs": np.abs,
    "pow": np.power, "relu": lambda a: np.maximum(a, 0), "maximum": np.maximum, "minimum": np.minimum, "exp": np.exp,
    "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt, "tanh": np.tanh, "sin": np.sin, "cos": np.cos,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)), "softplus": lambda a: np.logaddexp(a, 0),
    "tanh_softplus": lambda a: np.tanh(np.logaddexp(a, 0)),
    "d_tanh_softplus": lambda a: (1 - np.tanh(np.logaddexp(a, 0)) ** 2) / (1 + np.exp(-a)),
    "where": lambda a, b, p, q: np.where(a > b, p, q),
}  # fmt: skip


def reference(expression, x):
    special = pytest.importorskip("scipy.special")
    found = []
    for op, *operands in expression:
        if op == "symbol":
            found.append(x)
        elif op == "constant":
            found.append(np.full_like(x, operands[0]))
        else:
            found.append((REFERENCE | {"erf": special.erf})[op](*(found[i] for i in operands)))
    return found[-1]


def loop(f):
    """An elementwise loop compiled as the kernels are."""

    @numba.njit(error_model="numpy", fastmath={"contract"})
    def run(z, out):
        for i in range(z.size):
            out[i] = f(z[i])

    return run


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_operation_compiled_and_in_plain_python(dtype):
    f = scalar_function("every", EVERY, ["x"])
    x = np.linspace(-4, 4, 41, dtype=dtype)
    expected, out = reference(EVERY, x.astype(np.float64)), np.empty_like(x)
    loop(f)(x, out)
    tolerance = 1e-5 if dtype is np.float32 else 1e-13
    np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = [f(v) for v in x]
    np.testing.assert_allclose(plain, out, rtol=tolerance, atol=tolerance)
    assert dtype is np.float64 or {type(v) for v in plain} == {np.float32}


@pytest.mark.parametrize(
    ("expression", "at"),
    [
        ([X, ["relu", 0]], {np.nan: np.nan, -0.5: 0, np.inf: np.inf}),
        ([X, ["constant", 0.0], ["where", 0, 1, 0, 1]], {np.nan: np.nan, -1: 0, 2: 2}),
        ([X, ["constant", 0.0], ["where", 0, 1, 1, 0]], {np.nan: np.nan, -1: -1, 2: 0}),
        ([X, ["constant", 0.0], ["neg", 0], ["where", 0, 1, 2, 0]], {np.nan: np.nan, 3: -3}),
        ([X, ["constant", 1.0], ["maximum", 0, 1]], {np.nan: np.nan, 0: 1, 3: 3}),
        ([X, ["constant", 1.0], ["minimum", 0, 1]], {np.nan: np.nan, 0: 0, 3: 1}),
        ([X, ["sqrt", 0]], {-1: np.nan, np.inf: np.inf, 4: 2}),
        ([X, ["sin", 0]], {np.inf: np.nan}),
    ],
)  # fmt: skip
def test_not_a_number_and_limits(expression, at):
    f = scalar_function("edge", expression, ["x"])
    for x, expected in at.items():
        np.testing.assert_equal(float(f(np.float32(x))), float(expected))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loops_stay_packed(dtype):
    """No call, no branch around an operation: what a choice takes is computed before."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the check reads x86 assembly")
    packed = [
        X, C, ["constant", 0.0], ["mul", 0, 1], ["expm1", 3], ["where", 0, 2, 0, 4], ["tanh", 0], ["softplus", 6],
        ["maximum", 5, 7], ["sqrt", 7], ["div", 8, 9],
    ]  # fmt: skip
    run = loop(scalar_function("packed", packed, ["x"]))
    z = np.zeros(8, dtype)
    run(z, np.empty_like(z))
    assembly = run.inspect_asm(run.signatures[0])
    letter = "s" if dtype is np.float32 else "d"
    assert re.search(rf"\bv?divp{letter}\b", assembly)
    assert re.search(rf"\bv?sqrtp{letter}\b", assembly)
    assert not re.search(r"\bcall\w*\s+.*\b(exp|tanh|log|expm1)f?\b", assembly)


def test_chained_choices_are_packed_without_masks():
    """One choice over another, as in hard_swish: selects, and no jump that a packed loop would have to mask."""
    bounded = [
        X, ["constant", 3.0], ["add", 1, 0], ["constant", 0.0], ["where", 2, 3, 2, 3], ["constant", 6.0],
        ["where", 5, 4, 4, 5], ["mul", 0, 6],
    ]  # fmt: skip
    slope = [*bounded[:6], ["add", 0, 1], ["where", 2, 3, 6, 3], ["constant", 1.0], ["where", 5, 4, 7, 8]]
    f, d_f = (scalar_function("bounded", tree, ["x"]) for tree in (bounded, slope))

    @numba.njit(error_model="numpy", fastmath={"contract"})
    def run(z, b, a):
        for i in range(z.size):
            t = z[i] + b[i]
            z[i] = d_f(t)
            a[i] = f(t)

    z = np.zeros(8, np.float32)
    run(z, np.zeros_like(z), np.empty_like(z))
    code = run.inspect_llvm(run.signatures[0])
    assert re.search(r"fmul (contract )?<\d+ x float>", code)
    assert "llvm.masked." not in code


def test_one_expression_is_one_function():
    a, b = (scalar_function("same", [X, ["exp", 0]], ["x"]) for _ in range(2))
    assert a is b
    assert scalar_function("same", [X, ["expm1", 0]], ["x"]) is not a
    assert scalar_function("other", [X, ["exp", 0]], ["x"]) is not a
    assert (
        a.__module__ == "gpubp.kernels.expressions"
    )  # where a pickle and the caches of machine code find it
    assert getattr(sys.modules[a.__module__], a.__qualname__) is a


def test_constants_take_the_type_of_the_argument():
    text = source(
        "f", [["symbol", "a"], ["constant", 3], ["symbol", "y"], ["mul", 0, 1], ["add", 3, 2]], ["a", "y"]
    )
    assert text == "def f(a, y):\n    t3 = a * type(a)(3.0)\n    t4 = t3 + y\n    return t4\n"


def test_quotients_by_one_number_share_a_division():
    text = source("f", [X, C, ["add", 0, 1], ["div", 0, 2], ["div", 3, 2], ["div", 4, 1]], ["x"])
    assert text.count("/") == 1
    f = scalar_function("quotients", [X, C, ["add", 0, 1], ["div", 0, 2], ["div", 3, 2]], ["x"])
    assert f(np.float64(0.5)) == pytest.approx(0.5 / 4)


PROGRAM = textwrap.dedent(
    """
    import numpy as np
    from gpubp.backend.launch import make_row
    from gpubp.backend.team import walk
    from gpubp.kernels import dense
    from gpubp.kernels.compile import cpu_kernel
    from gpubp.kernels.expressions import scalar_function

    hits = 0
    for factor in (2.0, 3.0):
        f = scalar_function("line", [["symbol", "x"], ["constant", factor], ["mul", 0, 1]], ["x"])
        kernel = cpu_kernel(dense.bias_activation, np.float32, f)
        z = np.array([[-2.0, 3.0]], np.float32)
        row = make_row((z, np.zeros(2, np.float32)), (), kernel.address)
        walk(row.ctypes.data, 1, np.zeros(8, np.int64).ctypes.data, 1, 1)
        assert z.tolist() == [[-2 * factor, 3 * factor]], z
        hits += kernel.cache_hits
    print(hits)
    """
)


def test_the_second_process_takes_them_from_the_cache_and_mixes_nothing_up(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    assert [run.stdout.strip() for run in runs] == ["0", "2"]
