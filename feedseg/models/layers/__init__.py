"""Layers of the networks. Maps are [N, H, W, C]; a wrong shape is refused when a layer is traced.

    network             base class of every `Model`: stride and halo
    shapes              shape checks and their messages
    convolve            convolutions as functions, in the forms that are fastest on the CPU
    conv, batch_norm    convolutions, pooling and normalization as Flax modules
    blocks              conv + normalization + ReLU, dropout
    resize              up-sampling without weights
    encoder_decoder     encoder, bottom and decoder of a U-Net of any layers
    receptive_field     how far a network looks

The others belong to one network or one paper: awel (AEP), attention_gate (Attention U-Net),
dropblock (SA-UNet), densenet, shape_stream, canny and dual_attention (SAUNet).
"""
