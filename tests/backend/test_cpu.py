"""The NumPy backend: arrays and their accounting, products in every layout, the plain reference, several threads."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpubp
from gpubp.backend import State, get_backend
from gpubp.backend.cpu import CpuBackend
from gpubp.errors import ConfigError, DeviceError
from gpubp.kernels.activations import ACTIVATIONS

DTYPES = (np.float32, np.float64)
BACKENDS = {"compiled": CpuBackend(), "plain": CpuBackend(plain=True)}
sizes = st.integers(0, 33)


# ---- arrays --------------------------------------------------------------------------------------------


@given(
    shape=st.lists(st.integers(0, 7), min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from([*DTYPES, np.int64]),
)
def test_new_arrays_are_aligned_and_contiguous(shape, dtype):
    ops = BACKENDS["compiled"]
    for array in (ops.empty(shape, dtype), ops.zeros(shape, dtype)):
        assert (array.shape, array.dtype) == (shape, dtype)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.size == 0 or array.ctypes.data % 64 == 0
    assert not ops.zeros(shape, dtype).any()


def test_arrays_go_to_the_device_and_back():
    ops, host = BACKENDS["compiled"], np.arange(6.0).reshape(2, 3)
    assert np.shares_memory(ops.to_device(host), host)
    moved = ops.to_device(np.asfortranarray(host), np.float32)
    assert moved.dtype == np.float32
    assert moved.flags.c_contiguous
    np.testing.assert_array_equal(ops.to_host(moved), host)
    ops.write(moved, 2 * host)
    np.testing.assert_array_equal(moved, 2 * host)


def test_memory_goes_up_and_comes_back():
    ops = CpuBackend()
    assert (ops.memory().allocated, ops.memory().peak) == (0, 0)
    a, b = ops.empty((100, 10), np.float32), ops.zeros((7,), np.int64)
    assert ops.memory().allocated == ops.memory().peak == 4000 + 56
    row = a[3:]  # a view keeps its block alive
    del a
    gc.collect()
    assert ops.memory().allocated == 4056
    del row
    gc.collect()
    assert ops.memory().allocated == 56
    assert ops.memory().peak == 4056
    del b
    gc.collect()
    assert ops.memory().allocated == 0


def test_memory_of_a_trainer_comes_back():
    ops = CpuBackend()
    net = gpubp.Network([20, 30, 5], device=ops, seed=0)
    parameters = ops.memory().allocated
    assert parameters >= 2 * 4 * net.n_parameters
    trainer = gpubp.Trainer(net, "mse", "adam")
    trainer.step(np.ones((8, 20)), np.ones((8, 5)))
    assert ops.memory().allocated > 2 * parameters - 1000  # two slots and the buffers of the step
    del trainer, net
    gc.collect()
    assert ops.memory().allocated == 0


def test_devices_by_name():
    assert get_backend("auto") is get_backend("cpu")
    own = CpuBackend()
    assert get_backend(own) is own
    for name in ("gpu", "cuda:", "cuda:x", "CPU", 3, None):
        with pytest.raises(ConfigError, match="expected 'auto', 'cpu', 'cuda' or 'cuda:N'"):
            get_backend(name)
    listed = gpubp.devices()
    assert listed[0].name == "cpu"
    assert listed[0].usable
    for device in listed[1:]:
        if not device.usable:  # why, and the cure
            assert "use device='cpu'" in device.description
            with pytest.raises(DeviceError, match="is not usable"):
                get_backend(device.name)


# ---- products ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@given(
    m=sizes, k=sizes, n=sizes, ta=st.booleans(), tb=st.booleans(), out=st.booleans(), seed=st.integers(0, 999)
)
def test_products_of_matrices_and_their_transposes(backend, dtype, m, k, n, ta, tb, out, seed):
    ops, rng = BACKENDS[backend], np.random.default_rng(seed)
    a = rng.standard_normal((k, m) if ta else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if tb else (k, n)).astype(dtype)
    a, b = a.T if ta else a, b.T if tb else b
    target = np.full((m, n), np.nan, dtype) if out else None  # what stands in `out` must not be read
    c = ops.matmul(a, b, out=target)
    assert c is target or target is None
    assert (c.shape, c.dtype) == ((m, n), dtype)
    a, b = a.astype(np.float64), b.astype(np.float64)
    bound = (k + 2) * np.finfo(dtype).eps * (np.abs(a) @ np.abs(b))
    assert (np.abs(c - a @ b) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_keep_nan_and_infinity(dtype):
    a, b = np.array([[np.nan, 1], [0, np.inf], [1, 1]], dtype), np.ones((2, 2), dtype)
    c = BACKENDS["compiled"].matmul(a, b)
    assert np.isnan(c[0]).all()
    assert (c[1] == np.inf).all()
    assert (c[2] == 2).all()


def test_products_of_strided_matrices():
    big = np.arange(48.0).reshape(6, 8)
    a, b = big[::2, ::2], big[1:5, 2:5]
    np.testing.assert_allclose(BACKENDS["compiled"].matmul(a, b), a @ b, rtol=1e-15)


# ---- bias and activation: what delta needs of the forward pass -----------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_forward_keeps_what_delta_needs(name):
    from reference import ACTIVATION

    ops, g, (f, d_f) = BACKENDS["compiled"], ACTIVATIONS[name], ACTIVATION[name]
    rng = np.random.default_rng(5)
    z, b, upstream = rng.standard_normal((9, 4)), rng.standard_normal(4), rng.standard_normal((9, 4))
    a, saved = ops.bias_activation(z.copy(), b, g, keep=True)
    without, _ = ops.bias_activation(z.copy(), b, g, keep=False)
    np.testing.assert_array_equal(a, without)
    np.testing.assert_allclose(a, f(z + b), rtol=1e-12, atol=1e-15)
    db = np.full(4, np.nan)
    delta = ops.delta(upstream.copy(), saved, g, db)
    np.testing.assert_allclose(delta, upstream * d_f(z + b), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(db, delta.sum(axis=0), rtol=1e-12, atol=1e-14)


# ---- the plain path ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("loss", "optimizer"), [("softmax_cross_entropy", "adam"), ("mse", "sgd")])
def test_the_plain_path_trains_as_the_compiled_loop_does(dtype, loss, optimizer):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((70, 11)), rng.integers(0, 4, 70)
    y = y if loss == "softmax_cross_entropy" else rng.standard_normal((70, 4))
    found = []
    for ops in BACKENDS.values():
        net = gpubp.Network([11, 16, 4], "tanh", device=ops, dtype=dtype, seed=1)
        trainer = gpubp.Trainer(net, loss, optimizer, l2=1e-3, seed=2)
        history = trainer.fit(x, y, epochs=5, batch_size=16)
        found.append((net.flat.copy(), history["loss"]))
    # the two call the same BLAS, but np.matmul may take another routine for the same product: rounding apart
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e4 * eps, atol=1e4 * eps)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e3 * eps)


def test_the_plain_path_replays_from_python():
    ops = BACKENDS["plain"]
    state = State(ops, 0)
    a, b, c = np.ones((2, 3)), np.ones((3, 2)), np.zeros((2, 2))
    with ops.capture(state) as recording:
        ops.matmul(a, b, out=c)
    assert recording.plain
    assert all(launch.plain is not None for launch in recording.launches)
    a[0, 0] = 5
    assert recording.replay(3) == 3
    np.testing.assert_array_equal(c, a @ b)


# ---- several threads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [32, 512])  # alone, and shared where there are CPUs
def test_four_threads_predict_what_one_does(width):
    net = gpubp.Network([40, width, 10], "gelu", seed=0)
    batches = [np.random.default_rng(k).standard_normal((300 + k, 40)).astype(np.float32) for k in range(16)]
    serial = [net.forward(x).copy() for x in batches]
    with ThreadPoolExecutor(4) as pool:
        concurrent = list(pool.map(net.forward, batches * 4))
    for got, expected in zip(concurrent, serial * 4, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_recording_takes_the_launches_of_its_own_thread_alone():
    ops, a = CpuBackend(), np.ones((2, 2))
    with ops.capture(State(ops, 0)) as recording, ThreadPoolExecutor(1) as pool:
        pool.submit(ops.matmul, a, a).result()
        ops.matmul(a, a)
    assert len(recording.launches) == 1
