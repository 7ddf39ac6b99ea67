"""MNIST with three layers of 1024 rectifiers, dropout and max-norm; Srivastava et al. 2014 published 1.06 % error.

python examples/mnist_dropout.py [--epochs 40] [--width 1024] [--images 60000] [--picture mnist_dropout.png]
The data set lies where GPUBP_DATA_DIR says, or is downloaded with pooch.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure

import gpubp

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--epochs", type=int, default=40)
arguments.add_argument("--width", type=int, default=1024)
arguments.add_argument("--images", type=int, default=60_000, help="of the training part")
arguments.add_argument("--picture", default="mnist_dropout.png")
asked = arguments.parse_args()

mnist = gpubp.data.load("mnist")
x, y, test = mnist.x[: asked.images], mnist.y[: asked.images], mnist.test

# A fifth of the pixels and half of the hidden units are left out in each step; no unit's weights grow longer than 2.
layers: list[gpubp.Dense | gpubp.Dropout] = [gpubp.Dropout(0.2)]
for n_in in (784, asked.width, asked.width):
    layers += [gpubp.Dense(n_in, asked.width, "relu", max_norm=2.0), gpubp.Dropout(0.5)]
net = gpubp.Network([*layers, gpubp.Dense(asked.width, 10)], seed=0)
method = gpubp.Adam(1e-3)
trainer = gpubp.Trainer(net, "softmax_cross_entropy", method, schedule="one_cycle", seed=0)

curve = []  # the test part is watched, never used: nothing is chosen by it
history = trainer.fit(
    x,
    y,
    epochs=asked.epochs,
    batch_size=128,
    callbacks=[lambda trainer, row: curve.append(100 * (1 - trainer.evaluate(test.x, test.y)["accuracy"]))],
)
norms = np.concatenate([np.linalg.norm(net.backend.to_host(layer.W), axis=0) for layer in net.layers[:-1]])
print(f"{net.n_parameters} parameters, {sum(history['seconds']):.0f} s")
print(f"test error {curve[-1]:.2f} % after {asked.epochs} epochs; longest weights {norms.max():.2f}")

figure = Figure(figsize=(7, 4.2), layout="constrained")
axes = figure.subplots()
axes.plot(range(1, asked.epochs + 1), curve, label=f"gpubp: {curve[-1]:.2f} %")
axes.axhline(1.06, linestyle="--", color="gray", label="published: 1.06 %")
axes.set(xlabel="epoch", ylabel="test error, %", yscale="log")
axes.legend(frameon=False)
figure.savefig(asked.picture, dpi=120)
print(asked.picture)
