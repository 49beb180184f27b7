"""The sizes of a network whose levels halve the image."""

import flax.linen as nn

from feedseg.runtime.rounding import round_up


class Pyramid(nn.Module):
    """Base of networks with `filters` per level and `reach`, the radius in px that a pixel sees."""

    @property
    def stride(self) -> int:
        """2^(levels - 1): image sides are multiples of it."""
        return 2 ** (len(self.filters) - 1)

    @property
    def halo(self) -> int:
        """`reach`, rounded up to a multiple of the stride."""
        return round_up(self.reach, self.stride)
