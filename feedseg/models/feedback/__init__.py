"""Feedback: a U-Net runs several rounds with the same weights, each with the last round's outcome.

Three things can pass from a round to the next, and any of them combine:

    image or p_{t-1} -> [first block] -> encoder -> bottom -> decoder -> G_t -> classifier -> p_t
                             ^  connection(F, G_{t-1})            ConvLSTM states (c, h)_{t-1}

    what the round sees   the image again, or the class probabilities of the last round
    connection            the last feature map G of a round, joined to the first block's map F
    memory                states of ConvLSTMs that stand in the place of chosen convolutions

`round` is one round: its fields, its input, and the state it hands on; read it first. The loop over
the rounds is in `feedseg.models.feedback_unet`. `connection` has the ways back from G to F:
attention, addition, a convolution, squeeze and excitation, light attention. `attention` computes
exact attention over all pixels in blocks, with `scalar_attention` for one query channel. `convlstm`
is the memory, `recurrent_conv` the layer that it is compared with, which only sees its own output
in the same round. `round_norm` is batch normalization by round.
"""
