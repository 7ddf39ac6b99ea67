"""Trains a network on handwritten digits, reads the test part once, and checks a gradient."""

import gpubp

digits = gpubp.data.load("digits")
train, held_out = gpubp.data.split(digits, 0.1, seed=0)
net = gpubp.Network([64, 128, 128, 10], activation="relu", seed=0)
trainer = gpubp.Trainer(net, "softmax_cross_entropy", gpubp.Adam(2e-3), schedule="one_cycle", seed=0)
history = trainer.fit(train.x, train.y, epochs=30, batch_size=32, validation=(held_out.x, held_out.y))
print(history)
print(trainer.evaluate(digits.test.x, digits.test.y))
print(gpubp.gradcheck(net, train.x[:4], train.y[:4], loss="softmax_cross_entropy"))
