"""The engine's mathematics once more, in plain NumPy float64, to compare kernels with; and how to run a kernel."""

import math

import numpy as np

from gpubp.backend.launch import make_row
from gpubp.backend.team import walk
from gpubp.kernels.compile import cpu_kernel
from gpubp.kernels.replay import COUNTERS

# ---- activations: f and its derivative, both of z ------------------------------------------------------

_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772
_erf = np.vectorize(math.erf, otypes=[float])
_C = math.sqrt(2 / math.pi)


def _sigmoid(z):
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + e), e / (1 + e)) + 0 * z


def _softplus(z):
    return np.logaddexp(0, z)


def _phi(z):
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _expm1(z):
    return np.expm1(np.minimum(z, 0))


def _inner(z):
    return _C * (z + 0.044715 * z**3)


def _d_gelu_tanh(z):
    t = np.tanh(_inner(z))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * _C * (1 + 3 * 0.044715 * z * z)


def _d_mish(z):
    t = np.tanh(_softplus(z))
    return t + z * (1 - t * t) * _sigmoid(z)


def _keep_nan(z, values):
    return np.where(np.isnan(z), z, values)


ACTIVATION = {
    "identity": (lambda z: z, np.ones_like),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1, 0.01)),
    "elu": (lambda z: np.where(z > 0, z, _expm1(z)), lambda z: np.where(z > 0, 1, _expm1(z) + 1)),
    "selu": (
        lambda z: _SCALE * np.where(z > 0, z, _ALPHA * _expm1(z)),
        lambda z: _SCALE * np.where(z > 0, 1, _ALPHA * (_expm1(z) + 1)),
    ),
    "gelu": (
        lambda z: z * 0.5 * (1 + _erf(z / math.sqrt(2))),
        lambda z: 0.5 * (1 + _erf(z / math.sqrt(2))) + z * _phi(z),
    ),
    "gelu_tanh": (lambda z: 0.5 * z * (1 + np.tanh(_inner(z))), _d_gelu_tanh),
    "silu": (lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) * (1 + z * (1 - _sigmoid(z)))),
    "mish": (lambda z: z * np.tanh(_softplus(z)), _d_mish),
    "softplus": (_softplus, _sigmoid),
    "softsign": (lambda z: z / (1 + np.abs(z)), lambda z: 1 / (1 + np.abs(z)) ** 2),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * (1 - _sigmoid(z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "hard_tanh": (lambda z: np.clip(z, -1, 1), lambda z: (np.abs(z) < 1) * 1.0),
    "hard_swish": (
        lambda z: z * np.clip(z + 3, 0, 6) / 6,
        lambda z: np.where(z <= -3, 0, np.where(z >= 3, 1, z / 3 + 0.5)),
    ),
    "exp": (np.exp, np.exp),
}

# ---- losses: l and its derivative by the output, per entry; the convention over outputs ----------------

LOSS = {
    "half_sse": (lambda a, y: (a - y) ** 2 / 2, lambda a, y: a - y, "sum"),
    "sse": (lambda a, y: (a - y) ** 2, lambda a, y: 2 * (a - y), "sum"),
    "mse": (lambda a, y: (a - y) ** 2, lambda a, y: 2 * (a - y), "mean"),
    "mae": (lambda a, y: np.abs(a - y), lambda a, y: np.sign(a - y), "mean"),
    "huber": (
        lambda a, y: np.where(np.abs(a - y) <= 1, (a - y) ** 2 / 2, np.abs(a - y) - 0.5),
        lambda a, y: np.clip(a - y, -1, 1),
        "mean",
    ),
    "poisson": (lambda a, y: np.exp(a) - y * a, lambda a, y: np.exp(a) - y, "mean"),
    "binary_cross_entropy": (
        lambda a, y: np.logaddexp(0, a) - y * a,
        lambda a, y: _sigmoid(a) - y,
        "sum",
    ),
}


def softmax(a):
    e = np.exp(a - a.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def loss_delta(name, activation, z, b, y, w):
    """Mean loss, delta (batch, n) and db (n,) of a = f(z + b), weighted by w.

    And the sizes of what was added up for the loss and for each delta: rounding errors are relative to these.
    """
    f, d_f = ACTIVATION[activation]
    z, y, w = (np.asarray(v, np.float64) for v in (z + b, y, w))
    a, total = f(z), w.sum()
    share = (w / total if total > 0 else 0 * w)[:, None]
    if name in ("softmax_cross_entropy", "focal"):
        targets = y if y.ndim == 2 else np.eye(z.shape[1])[y.astype(int)]
        top = a.max(axis=1, keepdims=True) if len(a) else a
        log_p = a - top - np.log(np.exp(a - top).sum(axis=1, keepdims=True))
        p, rest = np.exp(log_p), -np.expm1(log_p)
        by_log_p = -np.ones_like(p) if name != "focal" else 2 * rest * p * log_p - rest**2
        losses = -targets * log_p * (1 if name != "focal" else rest**2)
        pulls = -targets * by_log_p
        upstream = p * pulls.sum(axis=1, keepdims=True) - pulls if len(a) else a
        y = targets
    else:
        l, d_l, convention = LOSS[name]
        share = share / (z.shape[1] if convention == "mean" else 1)
        losses, upstream = l(a, y), d_l(a, y)
    delta = share * upstream * d_f(z)
    size = 1 + np.abs(a) + np.abs(y)
    sizes = (
        float((share * (np.abs(losses) + size * size)).sum()),
        share * (size + np.abs(upstream)) * (1 + np.abs(d_f(z))),
    )
    return float((share * losses).sum()), delta, delta.sum(axis=0), *sizes


# ---- dropout: Philox4x32-10 in whole arrays, and the masks made of it ----------------------------------


def philox(c, k):
    """(4, ...) words of counters c (4, ...) under key k (2,), all below 2^32."""
    c, k = [np.asarray(word, np.uint64) for word in c], [int(word) for word in k]
    for _ in range(10):
        p = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        high, low = [x >> np.uint64(32) for x in p], [x & np.uint64(0xFFFFFFFF) for x in p]
        c = [high[1] ^ c[1] ^ np.uint64(k[0]), low[1], high[0] ^ c[3] ^ np.uint64(k[1]), low[0]]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return np.array(np.broadcast_arrays(*c))


def mask_bits(batch, n, *, seed, step, layer):
    """(batch, n) numbers below 2^16 that dropout compares with rate 2^16."""
    rows, groups = np.arange(batch)[:, None], np.arange(-(-n // 8))[None]
    words = philox((groups, rows, step % 2**32, layer + (step >> 32) * 2**16), (seed % 2**32, seed >> 32))
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], axis=1)  # (word, half, row, group)
    return halves.transpose(2, 3, 0, 1).reshape(batch, 8 * groups.size)[:, :n].astype(np.int64)


def mask(batch, n, rate, *, seed, step, layer):
    """m / (1 - rate), (batch, n), for the multiple of 2^-16 that the rate is rounded to."""
    least = min(round(rate * 65536), 65535)
    bits = mask_bits(batch, n, seed=seed, step=step, layer=layer)
    return (bits >= least) * (65536 / (65536 - least))


# ---- arrays of any device ------------------------------------------------------------------------------


def host(array):
    """The values of an array of the host or of a GPU, in NumPy."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


# ---- running one kernel --------------------------------------------------------------------------------

_MARGIN = 64


def run_kernel(factory, dtype, operands, scalars=(), integers=(), *, size=1):
    """Runs the kernel with a team of `size`, in place over `operands`, between margins that must come out untouched."""
    blocks, views = [], []
    for operand in operands:
        block = np.full(operand.nbytes + 2 * _MARGIN, 0xA5, np.uint8)
        view = block[_MARGIN : _MARGIN + operand.nbytes].view(operand.dtype).reshape(operand.shape)
        view[...] = operand
        blocks.append(block)
        views.append(view)
    row = make_row(views, integers, cpu_kernel(factory, np.dtype(dtype), *scalars).address)
    counters = np.zeros(COUNTERS, np.int64)
    assert walk(row.ctypes.data, 1, counters.ctypes.data, 1, size) == 1
    for block, view, operand in zip(blocks, views, operands, strict=True):
        assert (block[:_MARGIN] == 0xA5).all(), "wrote in front of an operand"
        assert (block[_MARGIN + operand.nbytes :] == 0xA5).all(), "wrote behind an operand"
        operand[...] = view


def torch_twin(torch, net):
    """PyTorch's network with the weights of `net`, tanh or relu between its layers, all in float64: a Sequential."""
    kinds, modules = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}, []
    for k, layer in enumerate(net.layers):
        linear = torch.nn.Linear(layer.n_in, layer.n_out, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(net.parameters()[f"{k}.W"].T.copy()))
            linear.bias.copy_(torch.from_numpy(net.parameters()[f"{k}.b"].copy()))
        modules.append(linear)
        if layer is not net.layers[-1]:
            modules.append(kinds[layer.activation.name]())
    return torch.nn.Sequential(*modules)
