"""Settings of every test."""

import importlib
import signal

import pytest
from hypothesis import settings

devices = importlib.import_module("gpubp.backend.devices")  # the package has a function of that name

# Started in the background of a script, a process ignores Ctrl-C; so would every test of it, and every child.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The first example of a property compiles its kernels, which takes seconds: no deadline per example.
settings.register_profile("gpubp", deadline=None)
settings.load_profile("gpubp")


def pytest_addoption(parser):
    parser.addoption(
        "--long",
        action="store_true",
        help="the tests marked `slow` too, and the long form of those marked `durability`; tens of minutes",
    )


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "torch" in item.fixturenames:
            item.add_marker("oracle")
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow and not config.getoption("--long"):
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]


@pytest.fixture(scope="session")
def torch():
    """PyTorch; the tests that take it are marked `oracle`."""
    return pytest.importorskip("torch", reason="PyTorch, the oracle of this test, is not installed")


@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Every device in turn; what the whole engine does is tested on each that this machine has."""
    if request.param == "cuda":
        found = next(one for one in devices.devices() if one.name.startswith("cuda"))
        if not found.usable:
            pytest.skip(found.description)
    return request.param


@pytest.fixture(autouse=True)
def auto_is_the_cpu(request):
    """Tests that name no device run on the CPU, on a machine with a GPU too; `real_auto` says that one is about it."""
    if "real_auto" in request.fixturenames or "cuda" in request.path.parts:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "_auto", devices._cpu)
        yield


@pytest.fixture(autouse=True, scope="session")
def ceilings_of_the_tests(tmp_path_factory):
    """What tests measure is not what the user's next run is compared with."""
    from gpubp.training import peak

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peak, "_FILE", str(tmp_path_factory.mktemp("cache") / "ceilings.json"))
        yield


@pytest.fixture
def real_auto():
    """Leaves device="auto" as users have it."""
