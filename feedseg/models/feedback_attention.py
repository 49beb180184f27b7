"""Feedback attention: a U-Net run twice, its last map attending back to its first.

Feedback Attention (2020), section 3. The network is `feedback_unet` with other settings: the image
is seen in every round, nothing is remembered, and `connection` leads from the map before the
classifier to the first block's. Its settings also take ConvLSTMs, more rounds, or probabilities.
"""

from feedseg.models import feedback_unet


class Model(feedback_unet.Model):
    """U-Net of `rounds` rounds with a connection; arguments and outputs as `feedback_unet.Model`.

        round 1:  x -> F -> ... -> G -> p1      round 2:  A = scale fb(F, G) + F -> ... -> p2

    F is computed once where it is the same in every round. The paper's loss is the cross-entropy of
    p2, with no gradient through round 1's G (round1_grad `stop`, what the paper says literally).
    """

    extra_conv: bool = False
    bn_rounds: str = "shared"
    feedback: str = "image"
    round1_grad: str = "stop"
    layout: str = "none"
    connection: str = "self"
