"""PyTorch, one CUDA graph over bfloat16 weights with a float32 master copy: no cast of a weight in a product."""

from __future__ import annotations

from typing import Any

from . import Job, Work
from ._torch import adam, graph, loss_of, network, on_device, start

DEVICES, PRECISIONS = ("cuda",), ("bfloat16",)


def step(job: Job) -> Work:
    import torch

    start(job)
    net, (x, y) = network(job), on_device(job, job.data())
    loss_function = loss_of(job)
    masters = [parameter.detach().clone().requires_grad_() for parameter in net.parameters()]
    net, x = net.to(torch.bfloat16), x.to(torch.bfloat16)
    shorts = list(net.parameters())
    optimizer = adam(job, masters)
    gradients = [torch.zeros_like(master) for master in masters]
    for master, gradient in zip(masters, gradients, strict=True):
        master.grad = gradient

    def once() -> Any:
        loss = loss_function(net(x).float(), y)
        torch._foreach_copy_(gradients, torch.autograd.grad(loss, shorts))
        optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(shorts, masters)
        return loss

    return graph(job, once)
