"""A population: networks of one shape, each with parameters of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy.typing as npt

from gpubp.backend import Backend, get_backend
from gpubp.backend.base import Array
from gpubp.checks import positive
from gpubp.errors import InputError
from gpubp.kernels.activations import Activation
from gpubp.layers import Given
from gpubp.network import Network

from .arguments import seeds_of


class Population:
    """`size` networks x (batch, n_in) -> a (batch, n_out), all of one shape, dtype and device.

    `population[k]` is a `Network` like any other, the one that `Network(..., seed=seeds[k])` makes. `seeds` is a list,
    or an integer for it and those that follow. The other arguments are those of `Network`.

    Raises InputError, ConfigError, DeviceError, DeviceMemoryError.
    """

    def __init__(
        self,
        layers: Sequence[int] | Sequence[Given],
        activation: str | Activation = "relu",
        output: str | Activation = "identity",
        *,
        size: int,
        seeds: int | Sequence[int] | None = None,
        device: str | Backend = "auto",
        dtype: npt.DTypeLike = "float32",
        precision: str | None = None,
    ) -> None:
        size, backend = positive(size, "size", "a population needs a member"), get_backend(device)
        self._members = [
            Network(
                layers,
                activation,
                output,
                device=backend.beside(k),
                dtype=dtype,
                precision=precision,
                seed=seed,
            )
            for k, seed in enumerate(seeds_of(seeds, size))
        ]

    @classmethod
    def of(cls, networks: Sequence[Network]) -> Population:
        """The population of these networks, which go on being theirs. Raises InputError where they are not alike."""
        if not isinstance(networks, Iterable):
            raise InputError(f"networks: expected a list of networks; got {networks!r:.80}; put it into one")
        members = list(networks)
        for k, net in enumerate(members):
            if not isinstance(net, Network):
                raise InputError(f"networks[{k}]: expected a Network; got {net!r:.80}")
            for what, mine, first in (
                ("layers, dtype and precision", net.config(), members[0].config()),
                ("device", net.backend.name, members[0].backend.name),
            ):
                if mine != first:
                    raise InputError(
                        f"networks[{k}]: expected the {what} of networks[0], {members[0]!r}; got {net!r}"
                    )
        if len({id(net) for net in members}) != len(members) or not members:
            raise InputError("networks: expected at least one network, and each of them once")
        population = cls.__new__(cls)
        population._members = members
        return population

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, k: int) -> Network:
        return self._members[k]

    def __iter__(self) -> Iterator[Network]:
        return iter(self._members)

    @property
    def backend(self) -> Backend:
        """The device of all members."""
        return self._members[0].backend

    def forward(self, x: npt.ArrayLike) -> Array:
        """The outputs of all members (size, batch, n_out) for x (batch, n_in). Raises InputError."""
        ops = self.backend
        with ops.ordered():
            outputs = [net.forward(x) for net in self._members]
            found = ops.empty((len(outputs), *outputs[0].shape), outputs[0].dtype)
            for k, one in enumerate(outputs):
                ops.write(found[k], one)
            return found

    def __repr__(self) -> str:
        return f"Population of {len(self)}: {self._members[0]!r}"

    def __reduce__(self) -> Any:
        """A copy or a pickle holds the members."""
        return _of, (self._members,)


def _of(members: list[Network]) -> Population:
    return Population.of(members)
