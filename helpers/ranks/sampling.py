"""Which token comes next: one drawn from the logits."""

import torch


def sample(logits: torch.Tensor, temperature: float | None, top_k: int | None, top_p: float | None, generator=None):
    """One token id for each row of logits [batch, tokens], drawn as asked.

    top_k keeps the k likeliest, top_p the likeliest that together have so much of the probability (Holtzman et al.
    2019, "The Curious Case of Neural Text Degeneration", section 3.1); the temperature acts before both.
    """
    if temperature is None:
        return logits.argmax(-1)
    ordered, ids = (logits / temperature).sort(-1, descending=True)
    if top_k is not None:
        ordered[:, top_k:] = -torch.inf
    shares = ordered.softmax(-1)
    if top_p is not None:
        shares[shares.cumsum(-1) - shares >= top_p] = 0  # what stands before it has enough already
    return ids.gather(-1, torch.multinomial(shares, 1, generator=generator)).squeeze(-1)
