"""Epochs that are drawn in advance."""

from random import Random

from tocsin_server.engine.redis.epochs import DRAWN_AT_ONCE, EPOCH_LETTERS, Epochs


def test_no_epoch_is_taken_twice() -> None:
    """Each has letters only, and the same length."""
    epochs = Epochs(Random(1))
    taken = [epochs.take() for _ in range(3 * DRAWN_AT_ONCE)]
    assert len(set(taken)) == len(taken)
    assert {len(epoch) for epoch in taken} == {EPOCH_LETTERS}
    assert all(epoch.isalpha() and epoch.islower() for epoch in taken)
