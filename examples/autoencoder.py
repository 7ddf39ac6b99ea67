"""An autoencoder of Fashion-MNIST: 784 pixels through 32 numbers and back, and a picture of what comes out.

python examples/autoencoder.py [--epochs 20] [--images 60000] [--picture autoencoder.png]; the picture needs matplotlib.
The data set lies where GPUBP_DATA_DIR says, or is downloaded with pooch.
"""

import argparse

import numpy as np
from matplotlib.figure import Figure

import gpubp

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--epochs", type=int, default=20)
arguments.add_argument("--images", type=int, default=60_000, help="of the training part")
arguments.add_argument("--picture", default="autoencoder.png")
asked = arguments.parse_args()

fashion = gpubp.data.load("fashion-mnist")
train, test = fashion.x[: asked.images], fashion.test.x

# The targets are the inputs; the code has no activation, so that it may lie anywhere.
net = gpubp.Network(
    [
        gpubp.Dense(784, 256, "relu"),
        gpubp.Dense(256, 32),
        gpubp.Dense(32, 256, "relu"),
        gpubp.Dense(256, 784, "sigmoid"),
    ],
    seed=0,
)
trainer = gpubp.Trainer(net, "mse", gpubp.Adam(2e-3), schedule="one_cycle", seed=0)
history = trainer.fit(train, train, epochs=asked.epochs, batch_size=128)
error = trainer.evaluate(test, test)["loss"]
of_the_mean = float(np.mean((test - train.mean(axis=0)) ** 2))
print(f"{net.n_parameters} parameters, {sum(history['seconds']):.1f} s")
print(f"test error {error:.4f} a pixel; the mean image has {of_the_mean:.4f}")

# Two images of each class: as they are, and below as they come back.
shown = np.concatenate([np.flatnonzero(fashion.test.y == label)[:2] for label in range(10)])
rows = np.stack([test[shown], net.forward(test[shown])]).reshape(2, 2, 10, 28, 28)
sheet = rows.transpose(1, 0, 3, 2, 4).reshape(4 * 28, 10 * 28)
figure = Figure(figsize=(10, 4.4), layout="constrained")
axes = figure.subplots()
axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=1)
axes.set(xticks=[], yticks=np.arange(14, 112, 28), yticklabels=["image", "through 32 numbers"] * 2)
axes.set_title(f"test error {error:.4f} a pixel")
figure.savefig(asked.picture, dpi=120)
print(asked.picture)
