"""What rows have seen keeps its place, whoever comes and goes, in no more than twice the room."""

import random

import torch

from datatunerx.modeling.cache import FEWEST_TOKENS, RowCache

LAYERS, HEADS, WIDTH = 2, 2, 4


def numbers(mark: int, tokens: int) -> torch.Tensor:
    return torch.full((HEADS, tokens, WIDTH), float(mark))


def places(cache: RowCache) -> int:
    """Tokens there is room for in all bands, seated or not."""
    stores = [store for band in cache._bands.values() for store in band.stores.values()]
    return sum(store.numel() for store in stores) // (2 * LAYERS * HEADS * WIDTH)


def test_rows_that_come_and_go_keep_their_numbers_in_at_most_twice_their_room():
    draw, cache, rows = random.Random(3), RowCache(), {}
    for mark in range(1, 400):
        if rows and draw.random() < (0.3 if mark < 300 else 0.7):
            cache.leave(rows.pop(draw.choice(list(rows))))
        else:
            tokens = draw.choice([1, 100, 130, 700, 3000])
            rows[mark] = seat = cache.seat(tokens)
            cache.begin_fill([(seat, tokens)])
            for layer in range(LAYERS):
                cache.fill(layer, numbers(mark, tokens), numbers(-mark, tokens))
            cache.end_fill()
        seated = sum(seat.band.width for seat in rows.values())
        assert places(cache) <= 2 * seated + 3 * FEWEST_TOKENS

    assert len(rows) > 5
    for mark, seat in rows.items():
        for layer in range(LAYERS):
            for which, sign in enumerate((1, -1)):
                store = seat.band.stores[layer, which]
                assert store[seat.at, :, : seat.seen].eq(sign * mark).all()
    for seat in rows.values():
        cache.leave(seat)
    assert places(cache) == 0
