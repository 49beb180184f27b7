"""AEP in PyTorch: networks 1 and 2, translation by one filter per class, AWEL."""

import torch


class Net(torch.nn.Module):
    """AEP's segmentation network. Layer names are those of the released weights."""

    # name: kind, input and output channels; skips are joined before deconv1, 2 and 3
    LAYERS = {
        "conv1": ("same", None, 32),
        "conv2": ("down", 32, 64),
        "conv3": ("same", 64, 64),
        "conv4": ("down", 64, 64),
        "conv5": ("same", 64, 64),
        "conv6": ("down", 64, 128),
        "conv7": ("same", 128, 128),
        "deconv1": ("up", 128 + 128, 64),
        "conv8": ("same", 64, 64),
        "deconv2": ("up", 64 + 64, 32),
        "conv9": ("same", 32, 32),
        "deconv3": ("up", 32 + 64, 16),
        "conv10": ("same", 16, None),
    }
    SKIP_FROM = {"deconv1": "conv6", "deconv2": "conv4", "deconv3": "conv2"}

    def __init__(self, num_classes: int, penultimate: int = 16, dropout: float = 0.5):
        super().__init__()
        for name, (kind, inputs, outputs) in self.LAYERS.items():
            inputs, outputs = inputs or 1, outputs or penultimate
            if kind == "same":
                layer = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
            elif kind == "down":
                layer = torch.nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
            else:
                layer = torch.nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
            self.add_module(name, layer)
            self.add_module(self.norm_name(name), torch.nn.BatchNorm2d(outputs))
        self.conv_f = torch.nn.Conv2d(penultimate, num_classes, 1)
        self.drop = torch.nn.Dropout(dropout)

    @staticmethod
    def norm_name(name: str) -> str:
        return name.replace("deconv", "bnde").replace("conv", "bn")

    def forward(self, x):
        """image [N, 1, H, W] -> logits [N, K, H, W], penultimate map."""
        before_drop = {}
        for name in self.LAYERS:
            if name in self.SKIP_FROM:
                x = torch.cat([x, before_drop[self.SKIP_FROM[name]]], 1)
            norm = getattr(self, self.norm_name(name))
            x = before_drop[name] = torch.relu(norm(getattr(self, name)(x)))
            if name != "conv10":
                x = self.drop(x)
        return self.conv_f(x), x


class Ensemble(torch.nn.Module):
    """AWEL: a point-wise convolution over the maps."""

    def __init__(self, maps: int):
        super().__init__()
        self.conv1 = torch.nn.Conv3d(maps, 1, 1)

    def forward(self, maps):
        """[N, S, K, H, W] -> [N, K, H, W]."""
        return self.conv1(maps)[:, 0]


class Aep(torch.nn.Module):
    """AEP + AWEL with one filter per class; network 2 called once per filter."""

    earlier = 1.0  # weight of the members' losses beside that of the result

    def __init__(self, num_classes: int, penultimate: int, dropout: float = 0.5):
        super().__init__()
        self.filters = num_classes
        self.net1 = Net(num_classes, penultimate, dropout)
        self.net2 = Net(num_classes, 16, dropout)
        self.ensemble = Ensemble(num_classes + 1)

    def forward(self, image):
        """image [N, 1, H, W] -> logits [N, K, H, W], members [N, S, K, H, W], filters."""
        first, penultimate = self.net1(image)
        members = [first]
        for index in range(self.filters):
            translated = torch.sigmoid(image + penultimate[:, index : index + 1])
            members.append(self.net2(translated)[0])
        members = torch.stack(members, 1)
        return self.ensemble(members), members, penultimate[:, : self.filters]

    def maps(self, image) -> list:
        """Logits of network 1, of network 2 for every filter, and the weighted sum."""
        logits, members, _ = self(image)
        return [*members.unbind(1), logits]
