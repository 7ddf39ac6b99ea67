"""What the contenders over PyTorch share: the network, the step, the epoch, and a step captured into a CUDA graph."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from . import BETAS, EPS, LR, Job, Work, threads

ACTIVATIONS = {"relu": "ReLU", "tanh": "Tanh", "gelu": "GELU"}
_WARM_UP = 3  # steps before a capture, as PyTorch's manual has it

Compiler = Callable[[Any], Any]


def start(job: Job) -> None:
    """Threads, and whether products of float32 may take TF32; bfloat16 comes by autocast."""
    import torch

    # Adam's count of steps has this type, and a compiled 1 - beta^t with it
    torch.set_default_dtype(getattr(torch, job.dtype))
    torch.set_num_threads(threads())
    torch.set_float32_matmul_precision("high" if job.precision == "tf32" else "highest")


def network(job: Job) -> Any:
    """The network with the job's parameters, on the device."""
    import torch

    modules: list[Any] = []
    for n_in, n_out in itertools.pairwise(job.layers):
        modules += [torch.nn.Linear(n_in, n_out), getattr(torch.nn, ACTIVATIONS[job.activation])()]
    net = torch.nn.Sequential(*modules[:-1]).to(job.device, getattr(torch, job.dtype))
    with torch.no_grad():
        for layer, (W, b) in zip(net[::2], job.parameters(), strict=True):
            layer.weight.copy_(torch.from_numpy(W).T)
            layer.bias.copy_(torch.from_numpy(b))
    return net


def on_device(job: Job, arrays: Any) -> tuple[Any, ...]:
    """On a CPU without a copy."""
    import torch

    return tuple(torch.from_numpy(array).to(job.device) for array in arrays)


def adam(job: Job, parameters: Any, fused: bool = True) -> Any:
    """Its step count lies on the device where a graph must change it."""
    import torch

    capturable = job.device.startswith("cuda")
    return torch.optim.Adam(parameters, LR, betas=BETAS, eps=EPS, fused=fused, capturable=capturable)


def loss_of(job: Job) -> Callable[[Any, Any], Any]:
    """loss(outputs, y)."""
    import torch

    return torch.nn.functional.mse_loss if job.regression else torch.nn.functional.cross_entropy


def training(
    job: Job, compiler: Compiler | None = None, compiled_update: bool = False
) -> Callable[[Any, Any], Any]:
    """step(x, y) makes one step and returns its loss; products in bfloat16 where that is the precision.

    The update is the fused Adam, or the plain one compiled.
    """
    import torch

    net, loss = network(job), loss_of(job)
    optimizer = adam(job, net.parameters(), fused=not compiled_update)

    def update() -> None:
        optimizer.step()

    def compute(x: Any, y: Any) -> Any:
        return loss(net(x), y)

    def cast(x: Any, y: Any) -> Any:
        with torch.autocast(torch.device(job.device).type, torch.bfloat16):
            return compute(x, y)

    forward = cast if job.precision == "bfloat16" else compute
    if compiler is not None:
        forward = compiler(forward)
        if compiled_update:
            update = compiler(update)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(x, y)
        loss.backward()
        update()
        return loss

    return step


def step_of(job: Job, compiler: Compiler | None = None, compiled_update: bool = False) -> Callable[[], Any]:
    """One step over the one batch."""
    step, (x, y) = training(job, compiler, compiled_update), on_device(job, job.data())
    return lambda: step(x, y)


def step_work(job: Job, step: Callable[[], Any], done: int = 0) -> Work:
    """Steps one after the other from Python."""
    last: list[Any] = [None]

    def run(times: int) -> None:
        start(job)
        for _ in range(times):
            last[0] = step()

    return Work(run, lambda: sync(job), lambda: float(last[0].detach()), done=done)


def epoch_work(job: Job, compiler: Compiler | None = None, compiled_update: bool = False) -> Work:
    """A random order, and batches by index_select: of the whole data set, then cut without a copy, or one by one."""
    import torch

    step, (x, y) = training(job, compiler, compiled_update), job.data_set()

    def batches(x: Any, y: Any) -> Iterable[tuple[Any, Any]]:
        order = torch.randperm(len(x), device=x.device)
        if job.narrow:
            return in_order(x.index_select(0, order), y.index_select(0, order))
        return ((x.index_select(0, i), y.index_select(0, i)) for i in order.split(job.batch))

    def in_order(x: Any, y: Any) -> Iterable[tuple[Any, Any]]:
        return zip(x.split(job.batch), y.split(job.batch), strict=True)

    def once(pairs: Iterable[tuple[Any, Any]]) -> float:
        total = torch.zeros((), device=job.device)
        for x_batch, y_batch in pairs:
            total += step(x_batch, y_batch).detach()
        return float(total) / job.batches

    def run(times: int) -> None:
        start(job)
        data = on_device(job, (x, y))
        for _ in range(times):
            once(batches(*data))

    return Work(run, lambda: sync(job), lambda: once(in_order(*on_device(job, (x, y)))))


def inference_work(job: Job, compiler: Compiler | None = None) -> Work:
    import torch

    net, (x, _) = network(job), job.data()

    def compute(x: Any) -> Any:
        return net(x)

    def cast(x: Any) -> Any:
        with torch.autocast(torch.device(job.device).type, torch.bfloat16):
            return net(x)

    forward = cast if job.precision == "bfloat16" else compute
    if compiler is not None:
        forward = compiler(forward)

    def once() -> Any:
        outputs = forward(torch.from_numpy(x).to(job.device)).cpu()
        return (outputs.float() if job.precision == "bfloat16" else outputs).numpy()

    def run(times: int) -> None:
        start(job)
        with torch.inference_mode():
            for _ in range(times):
                once()

    def loss() -> float:
        with torch.inference_mode():
            return job.loss(once())

    return Work(run, loss=loss)


def graph(job: Job, step: Callable[[], Any]) -> Work:
    """The step as one CUDA graph; on a CPU, where there is none, an error."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        loss = step()

    def run(times: int) -> None:
        for _ in range(times):
            captured.replay()

    return Work(run, lambda: sync(job), lambda: float(loss.detach()), done=_WARM_UP)


def sync(job: Job) -> None:
    """Waits for the device."""
    import torch

    with contextlib.suppress(AssertionError):  # PyTorch built without CUDA
        if job.device.startswith("cuda"):
            torch.cuda.synchronize()
