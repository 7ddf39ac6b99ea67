"""What the contenders over PyTorch share: the network, the step, and a step captured by hand into a CUDA graph."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

from . import BETAS, EPS, LR, Job, Work

ACTIVATIONS = {"relu": "ReLU", "tanh": "Tanh", "gelu": "GELU"}
_WARM_UP = 3  # steps before a capture, as PyTorch's manual has it


def set_precision(job: Job) -> None:
    """Whether products of float32 may take TF32; bfloat16 comes by autocast."""
    import torch

    torch.set_float32_matmul_precision("high" if job.precision == "tf32" else "highest")


def model(job: Job) -> tuple[Any, Any, Any]:
    """The network with the job's parameters, and its batch, on the device."""
    import torch

    modules: list[Any] = []
    for n_in, n_out in itertools.pairwise(job.layers):
        modules += [torch.nn.Linear(n_in, n_out), getattr(torch.nn, ACTIVATIONS[job.activation])()]
    net = torch.nn.Sequential(*modules[:-1]).to(job.device, getattr(torch, job.dtype))
    with torch.no_grad():
        for layer, (W, b) in zip(net[::2], job.parameters(), strict=True):
            layer.weight.copy_(torch.from_numpy(W).T)
            layer.bias.copy_(torch.from_numpy(b))
    return net, *(torch.from_numpy(array).to(job.device) for array in job.data())


def adam(job: Job, parameters: Any) -> Any:
    """Fused; its step count lies on the device where a graph must change it."""
    import torch

    capturable = job.device.startswith("cuda")
    return torch.optim.Adam(parameters, LR, betas=BETAS, eps=EPS, fused=True, capturable=capturable)


def forward_loss(job: Job, net: Any, x: Any, y: Any) -> Callable[[], Any]:
    """A function that computes the loss; float32 parameters with products in bfloat16 where that is the precision."""
    import torch

    def compute() -> Any:
        return torch.nn.functional.cross_entropy(net(x), y)

    if job.precision != "bfloat16":
        return compute

    def cast() -> Any:
        with torch.autocast(torch.device(job.device).type, torch.bfloat16):
            return compute()

    return cast


def step_of(job: Job, compile_loss: Callable[[Any], Any] | None = None) -> Callable[[], Any]:
    """One step, which returns its loss."""
    net, x, y = model(job)
    optimizer, loss_of = adam(job, net.parameters()), forward_loss(job, net, x, y)
    if compile_loss is not None:
        loss_of = compile_loss(loss_of)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss

    return step


def work(job: Job, step: Callable[[], Any], done: int = 0) -> Work:
    """Steps one after the other from Python."""
    last: list[Any] = [None]

    def run(times: int) -> None:
        set_precision(job)
        for _ in range(times):
            last[0] = step()

    return Work(run, lambda: sync(job), lambda: float(last[0].detach()), done=done)


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
