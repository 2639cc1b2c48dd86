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
# Transformed filters that are in work at a time. They are four times the filters, so they are never kept: working them
# out costs little more than reading them would.
FILTER_BYTES = 12 << 20

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


def taps_of(weight: torch.Tensor) -> torch.Tensor:
    """(K, C, 3, 3) filters -> (9, C, K) float32, contiguous: what `convolve` takes them as."""
    return weight.flatten(2).permute(2, 1, 0).float().contiguous()


def weight_of(taps: torch.Tensor) -> torch.Tensor:
    """The filters (K, C, 3, 3) again, channels-last."""
    return taps.unflatten(0, (3, 3)).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def tile_count(x: torch.Tensor) -> int:
    """How many tiles a (B, C, H, W) input is worked on as: the rows of each of the 36 matrix products."""
    batch, _, height, width = x.shape
    return batch * -(-height // TILE) * -(-width // TILE)


def convolve(x: torch.Tensor, taps: torch.Tensor, bias: torch.Tensor, relu: bool = False) -> torch.Tensor:
    """Convolve with stride 1 and one pixel of zero padding; optionally `max(0, ·)` of it.

    x: (B, C, H, W) float32, fastest in channels-last. taps: from `taps_of`. bias: (K,).
    Returns (B, K, H, W), channels-last. Rounding errors are 3 to 10 times those of a direct
    float32 convolution, by how the latter adds.
    """
    batch, channels, height, width = x.shape
    out_channels = taps.shape[2]
    tiles_y, tiles_x = -(-height // TILE), -(-width // TILE)
    padded = x.new_empty(batch, TILE * tiles_y + 2, TILE * tiles_x + 2, channels)
    padded[:, 0].zero_()
    padded[:, height + 1 :].zero_()
    padded[:, :, 0].zero_()
    padded[:, :, width + 1 :].zero_()
    padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    out = x.new_empty(batch, tiles_y, TILE, tiles_x, TILE, out_channels)

    input_matrix, output_matrix = _squared(_INPUT).to(x), _squared(_OUTPUT).to(x)
    filter_matrix = (_squared(_FILTER) / 24**2).to(x)  # (36, 9)
    at_once = max(1, min(36, FILTER_BYTES // (channels * out_channels * x.element_size())))
    filters = x.new_empty(at_once, channels, out_channels)
    groups = [slice(first, min(36, first + at_once)) for first in range(0, 36, at_once)]
    row_bytes = 36 * batch * tiles_x * (channels + out_channels) * x.element_size()
    strips = max(1, min(tiles_y, round(row_bytes * tiles_y / SCRATCH_BYTES)))
    image, row, column, _ = padded.stride()
    for number, strip in enumerate(torch.arange(tiles_y).tensor_split(strips)):
        first, count = int(strip[0]), len(strip)
        tiles = padded[:, TILE * first :].as_strided(  # (6, 6, B, rows of tiles, tiles in a row, C)
            (6, 6, batch, count, tiles_x, channels),
            (row, column, image, TILE * row, TILE * column, 1),
            TILE * first * row,
        )
        elements = torch.mm(input_matrix, tiles.reshape(36, -1)).view(36, -1, channels)  # (36, T, C)
        products = x.new_empty(36, elements.shape[1], out_channels)  # (36, T, K)
        for group in groups:
            its = filters[: group.stop - group.start]  # (elements of the group, C, K)
            if not number or len(groups) > 1:
                torch.mm(filter_matrix[group], taps.flatten(1), out=its.flatten(1))
            torch.bmm(elements[group], its, out=products[group])
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
