"""Arrays that lie on a GPU: taken where they lie, judged there by one look, refused in one line if they are bad."""

import numpy as np
import pytest
from fake_gpu import GpuArray, Machine
from hypothesis import given, settings
from hypothesis import strategies as st

import gpubp
from gpubp.backend.cpu import CpuBackend
from gpubp.backend.cuda.context import Context
from gpubp.backend.cuda.inputs import accept
from gpubp.data import validate
from gpubp.errors import InputError

rng = np.random.default_rng(0)
X = rng.normal(size=(12, 4)).astype(np.float32)
LABELS, TARGETS = rng.integers(0, 3, 12), rng.random((12, 3)).astype(np.float32)
WEIGHTS = rng.random(12).astype(np.float32)


class Gpu(CpuBackend):
    """A backend that takes arrays of a GPU as the CUDA one does, and computes on the CPU."""

    name = "cuda:0"

    def __init__(self, machine):
        super().__init__()
        self.context, self.machine, self.taken = Context(0), machine, []

    def accept(self, value, name):
        return accept(self.context, value, name)

    def ordered(self):
        return self.context.ordered()

    def to_device(self, array, dtype=None):
        return super().to_device(self._values(array), dtype)

    def write(self, array, values):
        super().write(array, self._values(values))

    def to_host(self, array):
        return array.get() if isinstance(array, GpuArray) else super().to_host(array)

    def _values(self, array):
        """What a copy inside the device does: the host does not look."""
        if isinstance(array, GpuArray):
            self.taken.append(array)
            return array.host
        return array


@pytest.fixture
def machine(monkeypatch):
    return Machine(gpus=2).install(monkeypatch)


def networks(machine, output="identity", dtype="float32"):
    """The same network on the CPU and on the GPU."""
    options = {"dtype": dtype, "seed": 0}
    return (
        gpubp.Network([4, 5, 3], "tanh", output, device="cpu", **options),
        gpubp.Network([4, 5, 3], "tanh", output, device=Gpu(machine), **options),
    )


# taken without a copy


def test_a_cupy_array_is_taken_as_it_is(machine):
    array = machine.array(X)
    assert accept(Context(0), array, "x") is array
    assert machine.looks == 0


def test_an_array_of_the_host_is_passed_on(machine):
    for value in (X, X.tolist(), None, 3):
        assert accept(Context(0), value, "x") is value


class Tensor:
    """Another library's array on a GPU."""

    def __init__(self, array):
        self.host, self.interface = array.host, array.__cuda_array_interface__

    @property
    def __cuda_array_interface__(self):
        return self.interface


Tensor.__module__ = "torch"


def test_what_shows_its_address_is_taken_over_the_same_memory(machine):
    theirs = Tensor(machine.array(X, device=1))
    found = accept(Context(1), theirs, "x")
    assert isinstance(found, machine.cupy.ndarray)
    assert found.host is theirs.host
    assert found.device.id == 1


def test_an_empty_array_lies_on_every_device(machine):
    empty = Tensor(machine.array(X[:0]))
    empty.interface = {"data": (0, False)}
    assert accept(Context(1), empty, "x").shape == (0, 4)


@pytest.mark.parametrize("wrap", [lambda array: array, Tensor], ids=["cupy", "torch"])
def test_an_array_on_another_gpu_is_one_clear_error(machine, wrap):
    with pytest.raises(InputError) as raised:
        accept(Context(0), wrap(machine.array(X, device=1)), "sample_weight")
    message = str(raised.value)
    assert message.startswith("sample_weight: expected an array on cuda:0, where the network is; got ")
    assert (
        "on cuda:1; copy it first: with cupy.cuda.Device(0): sample_weight = cupy.asarray(sample_weight)"
        in message
    )


class Refusing:
    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("Can't get it from a Variable that requires grad.\nUse var.detach()")


Refusing.__module__ = "torch"


def test_a_tensor_that_refuses_says_why(machine):
    with pytest.raises(
        InputError, match=r"^x: expected .* got torch.Refusing \(RuntimeError: Can't get it .*CuPy array$"
    ):
        accept(Context(0), Refusing(), "x")
    with pytest.raises(InputError, match=r"network on the CPU; got torch.Refusing on a GPU"):
        gpubp.Network([4, 3], device="cpu").forward(Refusing())


# checked on the device


@pytest.mark.parametrize(
    "y", [LABELS, TARGETS, LABELS[:, None], LABELS.astype(np.float64), LABELS.astype(np.uint8)]
)
@pytest.mark.parametrize("weights", [None, WEIGHTS, WEIGHTS[:, None].astype(np.float64)])
def test_good_arrays_stay_on_the_device_and_are_looked_at_once(machine, y, weights):
    host, gpu = networks(machine)
    loss = gpu.resolve_loss("softmax_cross_entropy")
    on_gpu = [None if array is None else machine.array(array) for array in (X, y, weights)]
    found = gpu.check_batch(on_gpu[0], on_gpu[1], loss, on_gpu[2])
    assert machine.looks == 1
    for got, expected in zip(found, host.check_batch(X, y, loss, weights), strict=True):
        on_device = isinstance(got, GpuArray)
        values = got.host if on_device else got
        assert on_device or weights is None
        assert values.dtype == expected.dtype
        assert values.flags.c_contiguous
        np.testing.assert_array_equal(values, expected)
    assert found[0] is on_gpu[0]


def test_forward_looks_once_and_converts_on_the_device(machine):
    host, gpu = networks(machine)
    for values in (
        X,
        X.astype(np.float64),
        X.astype(np.float16),
        np.asfortranarray(X),
        np.arange(8).reshape(2, 4),
    ):
        machine.looks = 0
        np.testing.assert_array_equal(gpu.forward(machine.array(values)), host.forward(values))
        assert machine.looks == 1


BAD = np.array([[0.5, np.nan, 1, 2], [1, 2, 3, 4]], np.float32)
GOOD = np.ones((2, 4), np.float32)
CASES = {
    "NaN": (BAD, [0, 1], None),
    "infinity": (np.where(np.isnan(BAD), np.inf, BAD), [0, 1], None),
    "overflow": (np.array([[1, 2, 3, 1e300], [1, 2, 3, 4]]), [0, 1], None),
    "one dimension": (GOOD[0], [0, 1], None),
    "three dimensions": (GOOD[None], [0, 1], None),
    "empty": (GOOD[:0], [], None),
    "no features": (GOOD[:, :0], [0, 1], None),
    "other features": (GOOD[:, :3], [0, 1], None),
    "complex": (GOOD.astype(np.complex64), [0, 1], None),
    "label too large": (GOOD, [0, 3], None),
    "label below 0": (GOOD, [-1, 0], None),
    "label with a fraction": (GOOD, [0.0, 1.5], None),
    "label that is NaN": (GOOD, [np.nan, 1.5], None),
    "number of labels": (GOOD, [0, 1, 2], None),
    "labels that are complex": (GOOD, [1j, 2], None),
    "probabilities below 0": (GOOD, [[0, 0.5, 0.5], [0, -0.25, 1]], None),
    "probabilities that are NaN": (GOOD, [[0, 0.5, np.nan], [0, 1, 1]], None),
    "shape of targets": (GOOD, [[0, 0.5], [0, -0.25]], None),
    "weight below 0": (GOOD, [0, 1], [1, -1]),
    "weight NaN": (GOOD, [0, 1], [1, np.nan]),
    "weights 0": (GOOD, [0, 1], [0.0, 0]),
    "weights too large": (GOOD, [0, 1], [3e38, 3e38]),
    "number of weights": (GOOD, [0, 1], [1, 2, 3]),
    "two errors": (BAD, [0, 3], [1, -1]),
}


def message_of(call, *arguments):
    with pytest.raises(InputError) as raised:
        call(*arguments)
    return str(raised.value)


@pytest.mark.parametrize("case", CASES)
def test_bad_arrays_are_refused_in_the_words_that_arrays_of_the_host_are(machine, case):
    host, gpu = networks(machine)
    batch = [None if array is None else np.array(array) for array in CASES[case]]
    on_gpu = [None if array is None else machine.array(array) for array in batch]
    loss = host.resolve_loss("softmax_cross_entropy")

    def check(net, x, y, w):
        net.check_batch(x, y, loss, w, prefix="validation ")

    message = message_of(check, host, *batch)
    assert message_of(check, gpu, *on_gpu) == message
    assert message.startswith("validation ")
    if batch[0] is not GOOD and case not in ("two errors",) and message.startswith("validation x"):
        assert message_of(gpu.forward, on_gpu[0]) == message.removeprefix("validation ")


@pytest.mark.parametrize(
    ("loss", "y"), [("binary_cross_entropy", [[0, 1.5, 0]]), ("poisson", [[1, 2, -0.5]])]
)
def test_targets_out_of_the_range_of_the_loss(machine, loss, y):
    host, gpu = networks(machine)
    x, y = GOOD[:1], np.array(y, np.float32)
    message = message_of(host.gradients, x, y, loss)
    assert message_of(gpu.gradients, machine.array(x), machine.array(y), loss) == message


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.lists(st.floats(width=64), min_size=3, max_size=3), min_size=1, max_size=4),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_any_values_are_judged_alike(values, dtype):
    machine = Machine()
    with pytest.MonkeyPatch.context() as patch:
        machine.install(patch)
        outcomes = []
        for array in (np.array(values), machine.array(values)):
            later = validate.Later()
            try:
                found = validate.features(array, 3, dtype, later)
                later.settle()
                outcomes.append(getattr(found, "host", found).tobytes())
            except InputError as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0, 3e38]), min_size=1, max_size=5))
def test_any_weights_are_judged_alike(values):
    machine = Machine()
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        machine.install(patch)
        outcomes = []
        for array in (np.array(values), machine.array(values)):
            later = validate.Later()
            try:
                found = validate.weights(array, len(values), later=later)
                later.settle()
                outcomes.append(getattr(found, "host", found).tobytes())
            except InputError as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


# everything that takes arrays


def test_gradients_step_evaluate_and_fit_take_arrays_of_the_gpu(machine):
    host, gpu = networks(machine)
    on_gpu = [machine.array(array) for array in (X, LABELS, WEIGHTS)]
    loss = "softmax_cross_entropy"
    (expected, _), (found, _) = (
        host.gradients(X, LABELS, loss, WEIGHTS),
        gpu.gradients(*on_gpu[:2], loss, on_gpu[2]),
    )
    assert found == expected
    one, two = gpubp.Trainer(host, loss, seed=0), gpubp.Trainer(gpu, loss, seed=0)
    assert float(one.step(X, LABELS, WEIGHTS)) == float(two.step(*on_gpu))
    assert one.evaluate(X, LABELS, WEIGHTS) == two.evaluate(*on_gpu)
    for trainer, (x, y, w) in ((one, (X, LABELS, WEIGHTS)), (two, on_gpu)):
        trainer.fit(x, y, epochs=2, batch_size=5, sample_weight=w, validation=(x, y, w))
    assert one.history["val_loss"] == two.history["val_loss"]


def test_arrays_of_host_and_gpu_together(machine):
    host, gpu = networks(machine)
    expected = host.gradients(X, LABELS, "softmax_cross_entropy", WEIGHTS)[0]
    for which in range(8):
        batch = [
            machine.array(array) if which >> k & 1 else array for k, array in enumerate((X, LABELS, WEIGHTS))
        ]
        assert gpu.gradients(*batch[:2], "softmax_cross_entropy", batch[2])[0] == expected


def test_parameters_of_the_gpu_are_loaded_there(machine):
    host, gpu = networks(machine)
    values = {name: rng.normal(size=view.shape) for name, view in host.parameters().items()}
    host.load_parameters(values)
    on_gpu = {name: machine.array(value) for name, value in values.items()}
    machine.looks = 0
    gpu.load_parameters(on_gpu)
    assert machine.looks == 1
    np.testing.assert_array_equal(gpu.forward(X), host.forward(X))
    before = gpu.forward(X)
    on_gpu["1.W"] = machine.array(np.full((5, 3), np.nan))
    with pytest.raises(
        InputError, match=r"parameter 1.W: expected finite values, got nan at row 0, column 0"
    ):
        gpu.load_parameters(on_gpu)
    np.testing.assert_array_equal(gpu.forward(X), before)


def test_the_callers_stream_is_waited_for(machine):
    _, gpu = networks(machine)
    machine.log.clear()
    gpu.forward(machine.array(X))
    assert machine.log[0][:2] == ("record", machine.null)
    assert machine.log[-1][:2] == ("wait", machine.null)
    assert len(machine.log) == 4


# on the CPU


@pytest.mark.parametrize("name", ["x", "y", "sample_weight"])
def test_a_network_on_the_cpu_refuses_arrays_of_a_gpu(machine, name):
    net, _ = networks(machine)
    trainer = gpubp.Trainer(net, "softmax_cross_entropy")
    batch = {"x": X, "y": LABELS, "sample_weight": WEIGHTS}
    batch[name] = machine.array(batch[name])
    calls = [
        lambda: net.gradients(batch["x"], batch["y"], "softmax_cross_entropy", batch["sample_weight"]),
        lambda: trainer.step(**batch),
        lambda: trainer.evaluate(**batch),
        lambda: trainer.fit(**batch, epochs=1),
        lambda: gpubp.gradcheck(net, batch["x"], batch["y"], "softmax_cross_entropy"),
    ]
    if name == "x":
        calls.append(lambda: net.forward(batch["x"]))
    if name == "sample_weight":
        calls.pop()
    for call in calls:
        assert message_of(call) == (
            f"{name}: expected an array of the host for a network on the CPU; got cupy.ndarray on a GPU; copy it "
            f"first: cupy.asnumpy({name})"
        )
    wrong = (batch["x"], batch["y"], batch["sample_weight"])
    assert message_of(lambda: trainer.fit(X, LABELS, validation=wrong)).startswith(
        f"validation {name}: expected"
    )
    assert machine.looks == 0


def test_parameters_on_a_gpu_for_a_network_on_the_cpu(machine):
    net, _ = networks(machine)
    values = {name: machine.array(view) for name, view in net.parameters().items()}
    assert message_of(net.load_parameters, values).startswith("parameter 0.W: expected an array of the host")


def test_what_works_on_the_host_alone_says_so(machine):
    from gpubp.data import Standardizer

    message = message_of(Standardizer.fit, machine.array(X))
    assert (
        message
        == "x: expected an array of the host, got cupy.ndarray on a GPU; copy it first: cupy.asnumpy(x)."
    )
