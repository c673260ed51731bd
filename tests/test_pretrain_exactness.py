"""MoCo's steps against Algorithm 1 of arXiv 1911.05722, written out plainly in float64."""

from collections import OrderedDict

import torch
from torch import nn

from pretrain.batch_norm import GroupedBatchNorm2d
from pretrain.moco import MoCo, contrastive_loss

N, C, K = 8, 4, 19  # K is no multiple of N: the queue wraps around within a batch
GROUPS, MOMENTUM, TEMPERATURE = 2, 0.9, 0.2
RATE, SGD_MOMENTUM, DECAY = 0.1, 0.9, 1e-4


def make_tiny_encoder() -> nn.Module:
    layers = {"conv1": nn.Conv2d(3, 5, 3, stride=2), "bn1": GroupedBatchNorm2d(5, num_groups=GROUPS)}
    return nn.Sequential(
        OrderedDict(layers, relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), fc=nn.Linear(5, C))
    )


class PlainMoCo:
    """Lists, loops and a manual SGD: nothing shared with the code under test but the first values."""

    def __init__(self, model: MoCo) -> None:
        self.query = {name: value.detach().clone() for name, value in model.encoder_q.named_parameters()}
        self.key = {name: value.detach().clone() for name, value in model.encoder_k.named_parameters()}
        self.velocity = {name: torch.zeros_like(value) for name, value in self.query.items()}
        self.queue = [model.queue[:, place].clone() for place in range(K)]
        self.pointer = 0
        self.running = {role: [torch.zeros(5).double(), torch.ones(5).double()] for role in ("query", "key")}

    def encode(self, weights: dict[str, torch.Tensor], images: torch.Tensor, role: str) -> list[torch.Tensor]:
        """One unit vector per image; BN over each half of the batch by itself."""
        embeddings, moments = [], []
        half = len(images) // GROUPS
        for group in (images[:half], images[half:]):
            maps = nn.functional.conv2d(group, weights["conv1.weight"], weights["conv1.bias"], stride=2)
            values = maps.permute(1, 0, 2, 3).reshape(5, -1)
            mean = values.sum(1) / values.shape[1]
            variance = ((values - mean[:, None]) ** 2).sum(1) / values.shape[1]
            unbiased = variance * values.shape[1] / (values.shape[1] - 1)
            moments.append((mean.detach(), unbiased.detach()))
            maps = (maps - mean[:, None, None]) / (variance[:, None, None] + 1e-5) ** 0.5
            maps = maps * weights["bn1.weight"][:, None, None] + weights["bn1.bias"][:, None, None]
            for image in maps.clamp(min=0):
                features = image.flatten(1).sum(1) / image[0].numel()
                vector = weights["fc.weight"] @ features + weights["fc.bias"]
                embeddings.append(vector / (vector @ vector) ** 0.5)
        for i, statistic in enumerate(self.running[role]):
            self.running[role][i] = 0.9 * statistic + 0.1 * (moments[0][i] + moments[1][i]) / 2
        return embeddings

    def step(
        self, queries: torch.Tensor, keys: torch.Tensor, shuffle: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Logits, loss and gradients of one step, which it then takes."""
        weights = {name: value.clone().requires_grad_() for name, value in self.query.items()}
        q = self.encode(weights, queries, "query")
        for name, value in self.key.items():
            self.key[name] = MOMENTUM * value + (1 - MOMENTUM) * self.query[name]
        shuffled = self.encode(self.key, torch.stack([keys[i] for i in shuffle]), "key")
        k = [shuffled[shuffle.index(i)] for i in range(N)]
        rows = [torch.stack([q[i] @ k[i], *(q[i] @ old for old in self.queue)]) / TEMPERATURE for i in range(N)]
        loss = sum(row.exp().sum().log() - row[0] for row in rows) / N
        loss.backward()
        for name, value in self.query.items():
            self.velocity[name] = SGD_MOMENTUM * self.velocity[name] + weights[name].grad + DECAY * value
            self.query[name] = value - RATE * self.velocity[name]
        for key in k:
            self.queue[self.pointer] = key
            self.pointer = (self.pointer + 1) % K
        return torch.stack(rows).detach(), loss.detach(), {name: value.grad for name, value in weights.items()}


def assert_near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours.detach(), theirs, rtol=1e-9, atol=1e-10)


def test_seven_steps_equal_the_algorithm_written_out() -> None:
    torch.manual_seed(0)
    model = MoCo(
        make_tiny_encoder,
        dim=C,
        queue_size=K,
        key_momentum=MOMENTUM,
        temperature=TEMPERATURE,
    ).double()
    plain = PlainMoCo(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=SGD_MOMENTUM, weight_decay=DECAY)
    for step in range(7):
        queries, keys = (torch.randn(N, 3, 9, 9).double() for _ in range(2))
        shuffle = torch.randperm(N)
        logits, _ = model(queries, keys, shuffle)
        loss = contrastive_loss(logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected_logits, expected_loss, gradients = plain.step(queries, keys, shuffle.tolist())
        assert_near(logits, expected_logits)
        assert_near(loss, expected_loss)
        for name, parameter in model.encoder_q.named_parameters():
            assert_near(parameter.grad, gradients[name])
            assert_near(parameter, plain.query[name])
        for name, parameter in model.encoder_k.named_parameters():
            assert_near(parameter, plain.key[name])
        for role, encoder in (("query", model.encoder_q), ("key", model.encoder_k)):
            assert_near(encoder.bn1.running_mean, plain.running[role][0])
            assert_near(encoder.bn1.running_var, plain.running[role][1])
        assert_near(model.queue, torch.stack(plain.queue, dim=1))
        assert model.queue_ptr.item() == plain.pointer == (step + 1) * N % K
