"""Feedback attention: a U-Net run twice, its last map attending back to its first.

    round 1:  x -> F -> ... -> G -> p1      round 2:  A = scale fb(F, G) + F -> ... -> p2

Feedback Attention (2020), section 3; not released. The network is `feedback_unet` with other
defaults, whose other arguments work here too: every round sees the image, nothing is remembered,
and `connection` leads from the map before the classifier to the first block's. F is computed once
where it is the same in every round.

Open readings, and the fields that choose the other ones: "only the gradients at the second round"
are used: round 1's G is a constant (`round1_grad="flow"`: the gradient passes through round 1);
normalizations are the same in both rounds, as the paper shares all weights (`bn_rounds`); filters
are 8 to 128 as in Feedback U-Net, whose numbers the paper's tables repeat (`filters`). For those of
the connection see `feedback.connection`.
"""

from feedseg.models import feedback_unet


class Model(feedback_unet.Model):
    """U-Net of `rounds` rounds with a connection; fields and outputs as `feedback_unet.Model`."""

    extra_conv: bool = False
    bn_rounds: str = "shared"
    feedback: str = "image"
    round1_grad: str = "stop"
    layout: str = "none"
    connection: str = "self"
