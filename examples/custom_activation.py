"""An activation of your own: three lines of Python, differentiated, checked and run in the engine's fused kernels."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import gpubp
from gpubp.scalar import Value, tanh


def lazy(x):
    return x * (1 + tanh(x / 2)) / 2


activation = gpubp.activation(lazy)
print(activation, "with the derivative", activation.formulas[1])

# What it does to one number, and the graph that its derivative comes from.
x = Value(0.5, "x")
y = lazy(x)
y.backward()
print(y.text())
assert math.isclose(x.grad, activation.d_f(0.5))

# In a network it is an activation like any other; the file of a run keeps its expression, and none of this code.
digits = gpubp.data.load("digits")
net = gpubp.Network([64, 64, 10], activation=activation, seed=0)
trainer = gpubp.Trainer(net, "softmax_cross_entropy", gpubp.Adam(2e-3), schedule="one_cycle", seed=0)
trainer.fit(digits.x, digits.y, epochs=15, batch_size=32)
print(trainer.evaluate(digits.test.x, digits.test.y))
with TemporaryDirectory() as folder:
    trainer.save(Path(folder) / "lazy.safetensors")
    again = gpubp.Trainer.load(Path(folder) / "lazy.safetensors")
print(again.net)
assert again.evaluate(digits.test.x, digits.test.y) == trainer.evaluate(digits.test.x, digits.test.y)

# What cannot be differentiated is refused before anything is trained.
try:
    gpubp.activation(lambda x: x if x > 0 else 0.01 * x, name="leaky")
except gpubp.InputError as error:
    print(error)
