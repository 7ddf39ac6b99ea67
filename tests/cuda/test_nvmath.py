"""Every name, value and signature of nvmath's bindings that the engine uses, and the stand-in's copy of them."""

import inspect

import numpy as np
import pytest

nvmath = pytest.importorskip(
    "nvmath", reason="nvmath-python is not installed: its names are not checked here"
)

import fake_cublaslt  # noqa: E402
import nvmath.bindings.cublas as cublas  # noqa: E402
import nvmath.bindings.cublasLt as lt  # noqa: E402
from fake_device import array  # noqa: E402

from gpubp.backend.cuda import plans  # noqa: E402
from gpubp.backend.cuda.epilogues import KINDS, Epilogue, aux_layout  # noqa: E402

CALLS = [
    name
    for name, method in vars(fake_cublaslt.Library).items()
    if inspect.isfunction(method) and not name.startswith("_")
]


@pytest.mark.parametrize("name", CALLS)
def test_calls_take_what_they_are_given(name):
    ours = list(inspect.signature(getattr(fake_cublaslt.Library, name)).parameters)[1:]
    first_line = getattr(lt, name).__doc__.splitlines()[0]
    theirs = first_line[first_line.index("(") + 1 : first_line.index(")")].split(",")
    assert len(ours) == len([one for one in theirs if one.strip()]), first_line
    assert hasattr(lt, name)


def test_the_operands_of_a_matmul_stand_in_this_order():
    line = lt.matmul.__doc__.splitlines()[0]
    names = [one.split()[-1] for one in line[line.index("(") + 1 : line.index(")")].split(",")]
    assert " ".join(names) == (
        "light_handle compute_desc alpha a adesc b bdesc beta c cdesc d ddesc algo workspace "
        "workspace_size_in_bytes stream"
    )
    line = lt.matmul_algo_get_heuristic.__doc__.splitlines()[0]
    names = [one.split()[-1] for one in line[line.index("(") + 1 : line.index(")")].split(",")]
    assert " ".join(names) == (
        "light_handle operation_desc adesc bdesc cdesc ddesc preference requested_algo_count "
        "heuristic_results_array return_algo_count"
    )


@pytest.mark.parametrize("name", ["Epilogue", "MatmulDescAttribute", "MatmulPreferenceAttribute"])
def test_enums_have_the_same_values(name):
    theirs = getattr(lt, name)
    for member in getattr(fake_cublaslt, name):
        assert theirs[member.name] == member


def test_epilogues_exist():
    assert {kind.constant for kind in KINDS.values()} <= set(lt.Epilogue.__members__)


@pytest.mark.parametrize(
    ("dtype_of", "attributes", "sizes"),
    [
        (lt.get_matmul_desc_attribute_dtype, fake_cublaslt.MatmulDescAttribute, fake_cublaslt.DESC_SIZES),
        (
            lt.get_matmul_preference_attribute_dtype,
            fake_cublaslt.MatmulPreferenceAttribute,
            fake_cublaslt.PREFERENCE_SIZES,
        ),
    ],
)
def test_attributes_have_the_same_sizes(dtype_of, attributes, sizes):
    for attribute in attributes:
        assert np.dtype(dtype_of(attribute)).itemsize == sizes[attribute]


def test_values_of_the_c_interface():
    assert {name: int(cublas.ComputeType[name]) for name in plans.COMPUTE} == plans.COMPUTE
    assert {False: int(cublas.Operation.N), True: int(cublas.Operation.T)} == plans.TRANSPOSE
    ours = {
        "float32": "CUDA_R_32F",
        "float64": "CUDA_R_64F",
        "float16": "CUDA_R_16F",
        "uint16": "CUDA_R_16BF",
    }
    assert {name: int(nvmath.CudaDataType[theirs]) for name, theirs in ours.items()} == plans.CUDA_TYPE
    assert int(lt.ReductionScheme.COMPUTE_TYPE) == plans.DETERMINISTIC_REDUCTIONS
    assert int(lt.ReductionScheme.NONE) == 0


def test_results_of_the_heuristic_lie_where_we_read_them():
    theirs = np.dtype(lt.matmul_heuristic_result_dtype)
    assert plans.HEURISTIC.itemsize == theirs.itemsize == fake_cublaslt.RESULT.itemsize
    for name in ("algo", "workspace_size", "state", "waves_count"):
        assert plans.HEURISTIC.fields[name][1] == theirs.fields[name][1]


@pytest.fixture(scope="module")
def library():
    try:
        lt.get_version()
    except Exception as error:
        pytest.skip(f"cuBLASLt does not answer without an NVIDIA driver: {error}")
    return lt


@pytest.mark.parametrize("kind", [None, *sorted(KINDS)])
@pytest.mark.parametrize("precision", sorted(plans.TYPES))
def test_the_library_takes_every_descriptor(library, kind, precision):
    form = plans.TYPES[precision]
    a, b = array(np.zeros((5, 3), form.storage)), array(np.zeros((7, 3), form.storage)).T
    for dtype in form.outputs:
        out, epilogue = array(np.zeros((5, 7), dtype)), None
        if kind is not None:
            layout = aux_layout(kind, 5, 7, dtype) if KINDS[kind].aux else None
            vector = array(np.zeros(7, dtype)) if KINDS[kind].vector else None
            epilogue = Epilogue(kind, vector, None if layout is None else array(np.zeros(*layout)))
        plan = plans.Plan(library, a, b, out, form.compute, form.scale, epilogue)
        found, size = np.zeros(1, np.int32), np.zeros(1, np.uint64)
        library.matmul_desc_get_attribute(
            plan.operation, library.MatmulDescAttribute.TRANSA, found.ctypes.data, 4, size.ctypes.data
        )
        assert (found[0], size[0]) == (1, 4)
        expected = []
        for layout, shape in zip(plan.layouts, ((3, 7, 3), (3, 5, 3), (7, 5, 7)), strict=True):
            for attribute, number in zip(("ROWS", "COLS", "LD"), shape, strict=True):
                value = np.zeros(1, np.int64)
                library.matrix_layout_get_attribute(
                    layout, library.MatrixLayoutAttribute[attribute], value.ctypes.data, 8, size.ctypes.data
                )
                expected.append((int(value[0]), number))
        assert all(got == wanted for got, wanted in expected)


def test_an_error_of_the_library_has_a_status(library):
    with pytest.raises(lt.cuBLASLtError) as caught:
        library.matmul_desc_set_attribute(library.matmul_desc_create(68, 0), 7, 0, 4)
    assert caught.value.status == 7
