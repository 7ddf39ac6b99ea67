"""A decision boundary, drawn: two half moons of points, and what a small classifier makes of the plane around them.

python examples/decision_boundary.py [decision_boundary.png]; the picture needs matplotlib.
"""

import sys

import numpy as np
from matplotlib.figure import Figure

import gpubp

# Two half circles that reach into each other, with noise; labels are one column of 0 and 1.
rng = np.random.default_rng(0)
angle, upper = np.pi * rng.random(600), rng.random(600) < 0.5
moons = np.where(upper, [np.cos(angle), np.sin(angle)], [1 - np.cos(angle), 0.5 - np.sin(angle)]).T
moons += 0.15 * rng.standard_normal(moons.shape)
labels = upper[:, None].astype(float)

net = gpubp.Network([2, 32, 32, 1], activation="tanh", seed=0)
trainer = gpubp.Trainer(net, "binary_cross_entropy", gpubp.Adam(1e-2), schedule="cosine", seed=0)
trainer.fit(moons[:400], labels[:400], epochs=60, batch_size=32)
scores = trainer.evaluate(moons[400:], labels[400:])
print(f"accuracy {scores['accuracy']:.3f} on {len(moons) - 400} points that it was not trained on")

# The probability of the upper moon all over the plane; at 0.5, where the logit is 0, the boundary.
x, y = np.meshgrid(np.linspace(-1.6, 2.6, 300), np.linspace(-1.2, 1.7, 210))
logits = net.forward(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(x.shape)
probability = 1 / (1 + np.exp(-logits))

figure = Figure(figsize=(7, 5), layout="constrained")
axes = figure.subplots()
axes.contourf(x, y, probability, levels=np.linspace(0, 1, 21), cmap="RdBu", alpha=0.7)
axes.contour(x, y, logits, levels=[0], colors="black")
for moon, colour in ((upper, "#1f4e9c"), (~upper, "#9c1f2e")):
    axes.scatter(*moons[moon].T, s=9, color=colour)
axes.set(
    title=f"{net.n_parameters} parameters, test accuracy {scores['accuracy']:.1%}", xlabel="x", ylabel="y"
)
picture = sys.argv[1] if len(sys.argv) > 1 else "decision_boundary.png"
figure.savefig(picture, dpi=120)
print(picture)
