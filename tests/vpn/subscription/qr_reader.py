"""Reads QR codes, as a telephone does but for the camera and the repair of errors. After ISO/IEC 18004."""

from __future__ import annotations

from collections.abc import Callable, Iterator

Matrix = list[list[bool]]

# Error correction codewords for each block, and blocks, of versions 1 to 20 (table 9 of the standard).
_LEVELS = {
    0b01: (
        (7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28),
        (1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8),
    ),
    0b00: (
        (10, 16, 26, 18, 24, 16, 18, 22, 22, 26, 30, 22, 22, 24, 24, 28, 28, 26, 26, 26),
        (1, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 8, 9, 9, 10, 10, 11, 13, 14, 16),
    ),
    0b11: (
        (13, 22, 18, 26, 18, 24, 18, 22, 20, 24, 28, 26, 24, 20, 30, 24, 28, 28, 26, 30),
        (1, 1, 2, 2, 4, 4, 6, 6, 8, 8, 8, 10, 12, 16, 12, 17, 16, 18, 21, 20),
    ),
    0b10: (
        (17, 28, 22, 16, 22, 28, 26, 26, 24, 28, 24, 28, 22, 24, 24, 30, 28, 28, 26, 28),
        (1, 1, 2, 4, 4, 4, 5, 6, 8, 8, 11, 11, 16, 16, 18, 16, 19, 21, 25, 25),
    ),
}
_MASKS: tuple[Callable[[int, int], bool], ...] = (
    lambda y, x: (y + x) % 2 == 0,
    lambda y, x: y % 2 == 0,
    lambda y, x: x % 3 == 0,
    lambda y, x: (y + x) % 3 == 0,
    lambda y, x: (y // 2 + x // 3) % 2 == 0,
    lambda y, x: y * x % 2 + y * x % 3 == 0,
    lambda y, x: (y * x % 2 + y * x % 3) % 2 == 0,
    lambda y, x: ((y + x) % 2 + y * x % 3) % 2 == 0,
)


def without_border(matrix: Matrix) -> Matrix:
    """The code without its quiet zone, which must be light."""
    rows = [y for y, row in enumerate(matrix) if any(row)]
    columns = [x for x in range(len(matrix[0])) if any(row[x] for row in matrix)]
    return [row[columns[0] : columns[-1] + 1] for row in matrix[rows[0] : rows[-1] + 1]]


def read_qr(matrix: Matrix) -> str:
    """The text of an undamaged code without border; True is dark."""
    size = len(matrix)
    version = (size - 17) // 4
    assert 1 <= version <= 20 and all(len(row) == size for row in matrix)
    places = [(8, x) for x in (0, 1, 2, 3, 4, 5, 7, 8)] + [(y, 8) for y in (7, 5, 4, 3, 2, 1, 0)]
    format_bits = int("".join(str(int(matrix[y][x])) for y, x in places), 2) ^ 0x5412
    level, mask = format_bits >> 13, _MASKS[format_bits >> 10 & 7]
    bits = [matrix[y][x] ^ mask(y, x) for y, x in _data_modules(size, version)]
    words = [int("".join(str(int(bit)) for bit in bits[at : at + 8]), 2) for at in range(0, len(bits) - 7, 8)]
    data = _joined(words, *(table[version - 1] for table in _LEVELS[level]))
    text = "".join(f"{word:08b}" for word in data)
    assert text[:4] == "0100", "not written as bytes"
    counted = 8 if version < 10 else 16
    length, start = int(text[4 : 4 + counted], 2), 4 + counted
    return bytes(int(text[at : at + 8], 2) for at in range(start, start + 8 * length, 8)).decode()


def _joined(words: list[int], correction: int, blocks: int) -> list[int]:
    """The data codewords of the interleaved blocks, block by block."""
    shorter, long_ones = divmod(len(words), blocks)
    lengths = [shorter - correction + (number >= blocks - long_ones) for number in range(blocks)]
    found: list[list[int]] = [[] for _ in lengths]
    coming = iter(words)
    for position in range(max(lengths)):
        for number, length in enumerate(lengths):
            if position < length:
                found[number].append(next(coming))
    return [word for block in found for word in block]


def _data_modules(size: int, version: int) -> Iterator[tuple[int, int]]:
    """Where the data stands, in its order: two columns at a time from the right, up and down in turn."""
    taken = _function_modules(size, version)
    upward = True
    for right in (*range(size - 1, 6, -2), 5, 3, 1):
        for step in range(size):
            y = size - 1 - step if upward else step
            yield from ((y, x) for x in (right, right - 1) if (y, x) not in taken)
        upward = not upward


def _function_modules(size: int, version: int) -> set[tuple[int, int]]:
    taken = {(6, at) for at in range(size)} | {(at, 6) for at in range(size)}
    for y, x in ((0, 0), (0, size - 8), (size - 8, 0)):
        taken |= {(y + dy, x + dx) for dy in range(9 if y == 0 else 8) for dx in range(9 if x == 0 else 8)}
    if version >= 7:
        taken |= {(a, b) for a in range(6) for b in range(size - 11, size - 8)}
        taken |= {(b, a) for a in range(6) for b in range(size - 11, size - 8)}
    if version >= 2:
        count = version // 7 + 2
        step = (version * 4 + count * 2 + 1) // (count * 2 - 2) * 2
        centres = [6, *(size - 7 - number * step for number in range(count - 1))]
        corners = {(6, 6), (6, size - 7), (size - 7, 6)}
        for y, x in {(a, b) for a in centres for b in centres} - corners:
            taken |= {(y + dy, x + dx) for dy in range(-2, 3) for dx in range(-2, 3)}
    return taken
