"""Every backend keeps the contract: the same operations with the same arguments. Needs no GPU and no CuPy."""

import inspect

import pytest

from gpubp.backend.base import Backend
from gpubp.backend.cpu import CpuBackend
from gpubp.backend.cuda.backend import CudaBackend
from gpubp.backend.cuda.recording import CudaRecording
from gpubp.backend.recording import CpuRecording

PUBLIC = [
    name
    for name, member in inspect.getmembers(Backend)
    if not name.startswith("_") and (callable(member) or isinstance(member, property))
]


def signature(cls, name):
    member = inspect.getattr_static(cls, name)
    function = member.fget if isinstance(member, property) else member
    return inspect.signature(inspect.unwrap(function))


def test_the_contract_is_not_empty():
    assert {"matmul", "dense", "dense_delta", "update", "capture", "cast", "storage", "watch"} <= set(PUBLIC)


@pytest.mark.parametrize("backend", [CpuBackend, CudaBackend])
def test_nothing_is_left_abstract(backend):
    assert not backend.__abstractmethods__


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("backend", [CpuBackend, CudaBackend])
def test_arguments_are_those_of_the_contract(backend, name):
    expected, found = signature(Backend, name), signature(backend, name)
    assert [(p.name, p.kind, p.default) for p in found.parameters.values()] == [
        (p.name, p.kind, p.default) for p in expected.parameters.values()
    ]


@pytest.mark.parametrize("name", ["name", "precision", "asynchronous", "description"])
def test_attributes(name):
    for backend in (CpuBackend, CudaBackend):
        assert (
            hasattr(backend, name)
            or name in backend.__init__.__code__.co_names
            or name in Backend.__annotations__
        )


@pytest.mark.parametrize("backend", [CpuBackend, CudaBackend])
def test_no_backend_offers_operations_of_its_own(backend):
    """What is public stands in the contract, or the text above would fit one device only."""
    own = {
        name
        for name, member in inspect.getmembers(backend, callable)
        if not name.startswith("_") and inspect.isfunction(member)
    }
    assert own <= set(PUBLIC)


@pytest.mark.parametrize("name", ["replay", "costs", "append"])
def test_recordings_are_alike(name):
    mine, theirs = (inspect.signature(getattr(cls, name)).parameters for cls in (CpuRecording, CudaRecording))
    assert [(p.name, p.default) for p in mine.values()] == [(p.name, p.default) for p in theirs.values()]
