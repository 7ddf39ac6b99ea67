"""Matrix products by cuBLASLt: planned once per operands, launched any number of times, also into a CUDA graph."""

from __future__ import annotations

from typing import Any, Protocol

from gpubp.backend.base import Array
from gpubp.errors import DeviceError

from . import tuning
from .bindings import load_cublaslt
from .epilogues import KINDS, Epilogue, checked
from .operands import alignments, check_operands, product_name
from .plans import TYPES, Algorithm, Plan, short
from .relu_probe import computes_our_relu
from .tuning import Tuner, device_identity

CANDIDATES = 8  # algorithms asked of the library, of which the fastest is kept


class Context(tuning.Context, Protocol):
    """What products need of a device; `Lane` has it. Products of one workspace must not run at the same time."""

    @property
    def handle(self) -> int:
        """cublasLtHandle_t of the device."""

    @property
    def workspace(self) -> Array:
        """uint8, 32 MiB, aligned to 256 bytes."""


class Launchable(Protocol):
    """A prepared operation on fixed operands; calling it allocates nothing and does not wait.

    `capturable`: whether it may be called while its stream is captured into a graph.
    """

    capturable: bool
    name: str

    def __call__(self) -> None: ...


class Product:
    """C = epilogue(A B) by one algorithm: each call is one cublasLtMatmul on the context's stream."""

    __slots__ = ("_arguments", "_context", "_error", "_matmul", "algorithm", "name", "plan")
    capturable = True

    def __init__(self, context: Context, lt: Any, plan: Plan, algorithm: Algorithm, name: str) -> None:
        self.name, self.plan, self.algorithm = name, plan, algorithm
        self._context, self._matmul, self._error = context, lt.matmul, lt.cuBLASLtError
        self._arguments = self._with(plan.a)

    def _with(self, a: Array) -> tuple[int, ...]:
        plan, workspace = self.plan, self._context.workspace
        layout_b, layout_a, layout_out = plan.layouts
        out = plan.out.data.ptr
        return (
            self._context.handle,
            plan.operation,
            *(plan.one.ctypes.data, plan.b.data.ptr, layout_b, a.data.ptr, layout_a),
            *(plan.zero.ctypes.data, out, layout_out, out, layout_out),
            self.algorithm.data.ctypes.data,
            *(workspace.data.ptr, workspace.nbytes),
        )

    def __call__(self) -> None:
        self._launch(self._arguments)

    def run_with(self, a: Array) -> None:
        """The same launch with another A of the same layout and alignment."""
        self._launch(self._with(a))

    def _launch(self, arguments: tuple[int, ...]) -> None:
        try:
            self._matmul(*arguments, self._context.stream.ptr)
        except self._error as error:
            raise DeviceError(f"{self.name}: cuBLASLt refused the launch: {short(error)}") from None


class Cleared:
    """The product of empty matrices: writes zeros where there is something to write."""

    capturable = True

    def __init__(self, context: Context, arrays: tuple[Array, ...], name: str) -> None:
        self.name, self._context = name, context
        self._arrays = tuple(array for array in arrays if array.nbytes)

    def __call__(self) -> None:
        for array in self._arrays:
            array.data.memset_async(0, array.nbytes, self._context.stream)


class Products:
    """Products of one device. All of them share the context's workspace, so they run one after another.

    `tuner` chooses among the library's algorithms; without, one is made, with `deterministic` as given.
    """

    capturable = True

    def __init__(self, context: Context, tuner: Tuner | None = None, *, deterministic: bool = False) -> None:
        self._context = context
        self._lt = load_cublaslt()
        self.version = int(self._lt.get_version())
        self.tuner = tuner or Tuner(
            context, device_identity(context, self.version), deterministic=deterministic
        )
        self._refused: dict[str, str] = {}

    def prepare(
        self, a: Array, b: Array, out: Array, *, precision: str, epilogue: Epilogue | None = None
    ) -> Launchable:
        """C = epilogue(A B) for a (m, k), b (k, n), C-contiguous or transposes of such, and out (m, n), C-contiguous.

        precision: "float64"; "float32" (strict, no TF32); "tf32"; "bfloat16" (uint16 arrays) or "float16", with sums
        in float32 and out in float32 or as a and b are stored. Same operands, same bits in every run on one machine.
        Prepared before a capture: plans, measures the algorithms, and overwrites out (and what the epilogue writes).
        Sums of no terms (k = 0) are zero.

        Raises InputError: shapes, layouts, dtypes; ConfigError: unknown precision;
        DeviceError: a combination that this device cannot compute (`try_prepare` answers None instead).
        """
        product, reason = self._prepare(a, b, out, precision, epilogue)
        if product is None:
            cure = (
                "compute the product without an epilogue" if epilogue else "use another precision or device"
            )
            raise DeviceError(
                f"{product_name(a, b, out, precision, epilogue)} cannot be computed: {reason}; {cure}"
            )
        return product

    def try_prepare(
        self, a: Array, b: Array, out: Array, *, precision: str, epilogue: Epilogue | None = None
    ) -> Launchable | None:
        """`prepare`, or None where this device cannot compute this combination (an epilogue, as a rule)."""
        return self._prepare(a, b, out, precision, epilogue)[0]

    def _prepare(
        self, a: Array, b: Array, out: Array, precision: str, epilogue: Epilogue | None
    ) -> tuple[Launchable | None, str]:
        check_operands(a, b, out, precision)
        if self._context.stream.is_capturing():
            raise DeviceError("a product was prepared inside a capture; prepare it before the capture begins")
        name = product_name(a, b, out, precision, epilogue)
        reason = None if epilogue is None else checked(epilogue, out) or _unsupported(a, epilogue)
        if reason is None and 0 in (*a.shape, *out.shape):
            return self._empty(out, epilogue, name)
        key = f"{name} align {alignments(a, b, out, epilogue)}"
        reason = reason or self._refused.get(key)
        if reason is not None:
            return None, reason
        product, reason = self._choose(a, b, out, precision, epilogue, name, key)
        if product is None:
            self._refused[key] = reason
        return product, reason

    def _empty(self, out: Array, epilogue: Epilogue | None, name: str) -> tuple[Launchable | None, str]:
        if epilogue is not None and out.size:
            return None, "it has no terms (k = 0), and the library's epilogues need some"
        written = epilogue is not None and KINDS[epilogue.kind].vector == "gradient"
        arrays = (out, epilogue.vector) if epilogue is not None and written else (out,)
        return Cleared(self._context, arrays, name), ""

    def _choose(
        self, a: Array, b: Array, out: Array, precision: str, epilogue: Epilogue | None, name: str, key: str
    ) -> tuple[Product | None, str]:
        kind = TYPES[precision]
        products: dict[str, Product] = {}
        for compute in filter(None, (kind.compute, kind.pedantic)):
            plan = Plan(self._lt, a, b, out, compute, kind.scale, epilogue)
            found = plan.algorithms(self._context.handle, self._context.workspace.nbytes, CANDIDATES)
            products = {one.name: Product(self._context, self._lt, plan, one, name) for one in found}
            if products:
                break
        else:
            return None, f"cuBLASLt {self.version} has no algorithm for it on this device"
        accept = None
        if epilogue is not None and KINDS[epilogue.kind].constant.startswith("RELU"):

            def accept(one: str) -> bool:
                return computes_our_relu(products[one], epilogue, self._context)

        chosen = self.tuner.choose(key, products, accept)
        if chosen is None:
            return None, "cuBLASLt's relu on this device loses NaN, or lets gradients of 0 through"
        return products[chosen], ""


def _unsupported(a: Array, epilogue: Epilogue) -> str | None:
    """Combinations that the library documents as missing."""
    if a.shape[1] == 1 and not KINDS[epilogue.kind].forward:
        return "cuBLASLt has no backward epilogue for one term (k = 1)"
    return None
