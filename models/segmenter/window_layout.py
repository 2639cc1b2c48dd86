"""The order of an image's tokens by windows: every window's tokens side by side, those cut by an edge apart."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Block:
    """Windows of one shape, next to each other in the grid: all that lie within it, or all cut by one edge."""

    top: int
    left: int
    down: int  # windows below each other
    across: int  # windows beside each other
    height: int  # the part of each window that lies in the grid
    width: int

    @property
    def tokens(self) -> int:
        return self.down * self.across * self.height * self.width

    def of(self, grid: Tensor) -> Tensor:
        """Its part of (B, h, w, C), as a view (B, down, across, height, width, C)."""
        bottom, right = self.top + self.down * self.height, self.left + self.across * self.width
        part = grid[:, self.top : bottom, self.left : right]
        return part.unflatten(2, (self.across, -1)).unflatten(1, (self.down, -1)).transpose(2, 3)


@dataclass(frozen=True)
class Layout:
    """An order of a grid's tokens: block by block, and in each image by image, window by window, row by row.

    grid_hw: the image's grid of tokens. window_hw: the windows'; where a window is the whole grid, the order is
    the grid's own.
    """

    grid_hw: tuple[int, int]
    window_hw: tuple[int, int]

    @property
    def blocks(self) -> list[Block]:
        edges = []
        for size, window in zip(self.grid_hw, self.window_hw, strict=True):
            whole, rest = divmod(size, window)
            inside, cut = [(0, whole, window)] if whole else [], [(whole * window, 1, rest)] if rest else []
            edges.append(inside + cut)
        return [Block(y, x, down, across, h, w) for y, down, h in edges[0] for x, across, w in edges[1]]

    def gather(self, grid: Tensor, tokens: Tensor) -> None:
        """(B, h, w, C) -> tokens (B h w, C) in this order."""
        start = 0
        for block in self.blocks:
            part = block.of(grid)
            stop = start + part.shape[:-1].numel()
            tokens[start:stop].view(part.shape).copy_(part)
            start = stop

    def scatter(self, tokens: Tensor, grid: Tensor) -> None:
        """tokens (B h w, C) in this order -> (B, h, w, C)."""
        start = 0
        for block in self.blocks:
            part = block.of(grid)
            stop = start + part.shape[:-1].numel()
            part.copy_(tokens[start:stop].view(part.shape))
            start = stop
