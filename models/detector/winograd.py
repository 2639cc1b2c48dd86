"""3 x 3 convolutions by Winograd's minimal filtering F(4 x 4, 3 x 3): a quarter of the multiplications.

Plain torch operations for a CPU on which float32 products are what takes the time. This module knows nothing of
layers or models.

Source: A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.2. An output
tile Y of 4 x 4 pixels comes from an input tile d of 6 x 6 by Y = A' [(G g G') * (B' d B)] A, where * is element
by element and g the 3 x 3 filter. Summed over input channels, each of the 36 elements is one matrix product over
all tiles.
"""

from __future__ import annotations

import torch

TILE = 4  # output pixels of a tile's side; its input has two more
# Transformed tiles that are in work at a time: few enough that they stay in the last level of cache.
SCRATCH_BYTES = 24 << 20

_INPUT = [  # B'
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_FILTER = [  # G, times 24
    [6, 0, 0],
    [-4, -4, -4],
    [-4, 4, -4],
    [1, 2, 4],
    [1, -2, 4],
    [0, 0, 24],
]
_OUTPUT = [  # A'
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
]
# The element that every output pixel takes once and unscaled (A' has only ones there): the bias is added to it.
_BIAS_ELEMENT = 6 * 1 + 1


def _squared(matrix: list[list[int]]) -> torch.Tensor:
    """What the matrix does to both sides of a tile, as one matrix on the tile's elements in row order."""
    one_side = torch.tensor(matrix, dtype=torch.float32)
    return torch.kron(one_side, one_side)


def transform_filters(weight: torch.Tensor) -> torch.Tensor:
    """(K, C, 3, 3) filters -> (36, C, K) float32, contiguous; worked out in float64."""
    one_side = torch.tensor(_FILTER, dtype=torch.float64, device=weight.device) / 24
    tiles = torch.einsum("ai,kcij,bj->abck", one_side, weight.double(), one_side)
    return tiles.reshape(36, weight.shape[1], weight.shape[0]).float().contiguous()


def tile_count(x: torch.Tensor) -> int:
    """How many tiles a (B, C, H, W) input is worked on as: the rows of each of the 36 matrix products."""
    batch, _, height, width = x.shape
    return batch * -(-height // TILE) * -(-width // TILE)


def convolve(x: torch.Tensor, filters: torch.Tensor, bias: torch.Tensor, relu: bool = False) -> torch.Tensor:
    """Convolve with stride 1 and one pixel of zero padding; optionally `max(0, ·)` of it.

    x: (B, C, H, W) float32, fastest in channels-last. filters: from `transform_filters`. bias: (K,).
    Returns (B, K, H, W), channels-last. Rounding errors are 3 to 10 times those of a direct
    float32 convolution, by how the latter adds.
    """
    batch, channels, height, width = x.shape
    out_channels = filters.shape[2]
    tiles_y, tiles_x = -(-height // TILE), -(-width // TILE)
    padded = x.new_empty(batch, TILE * tiles_y + 2, TILE * tiles_x + 2, channels)
    padded[:, 0].zero_()
    padded[:, height + 1 :].zero_()
    padded[:, :, 0].zero_()
    padded[:, :, width + 1 :].zero_()
    padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    out = x.new_empty(batch, tiles_y, TILE, tiles_x, TILE, out_channels)

    input_matrix, output_matrix = _squared(_INPUT).to(x), _squared(_OUTPUT).to(x)
    row_bytes = 36 * batch * tiles_x * (channels + out_channels) * x.element_size()
    strips = max(1, min(tiles_y, round(row_bytes * tiles_y / SCRATCH_BYTES)))
    image, row, column, _ = padded.stride()
    for strip in torch.arange(tiles_y).tensor_split(strips):
        first, count = int(strip[0]), len(strip)
        tiles = padded[:, TILE * first :].as_strided(  # (6, 6, B, rows of tiles, tiles in a row, C)
            (6, 6, batch, count, tiles_x, channels),
            (row, column, image, TILE * row, TILE * column, 1),
            TILE * first * row,
        )
        elements = torch.mm(input_matrix, tiles.reshape(36, -1)).view(36, -1, channels)  # (36, T, C)
        products = torch.bmm(elements, filters)  # (36, T, K)
        products[_BIAS_ELEMENT] += bias
        pixels = torch.mm(output_matrix, products.view(36, -1))  # (16, T K)
        pixels = pixels.view(TILE, TILE, batch, count, tiles_x, out_channels).permute(2, 3, 0, 4, 1, 5)
        into = out[:, first : first + count]
        if relu:
            torch.clamp_min(pixels, 0, out=into)
        else:
            into.copy_(pixels)
    whole = out.view(batch, TILE * tiles_y, TILE * tiles_x, out_channels)[:, :height, :width]
    return whole.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
