"""Which things are shown where not all can be."""


def spread(count: int) -> list[int]:
    """Returns 0..count-1 in an order of which any first part is spread evenly.

    >>> spread(8)
    [0, 5, 2, 7, 4, 1, 6, 3]
    """
    # multiples of the golden ratio modulo 1
    return sorted(range(count), key=lambda i: (i * 0.6180339887498949) % 1)
