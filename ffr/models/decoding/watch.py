"""What the host knows of answers that a device writes, without waiting for it at each token."""

from __future__ import annotations

import torch

TOKENS_A_LOOK = 8
"""How many tokens a device writes before the host looks again, where looking means waiting."""


PASSES_A_LOOK = 2
"""How many passes, where a pass writes several tokens: all may be written after a few."""


def tokens_between_looks(device: torch.device, *, are_guessed: bool = False) -> int:
    """How many tokens a device writes before the host looks: one where it looks at no copy.

    Args:
        device: Where the answers are written.
        are_guessed: Whether a pass writes several; then so many passes.

    >>> tokens_between_looks(torch.device("cpu")), tokens_between_looks(torch.device("cuda"))
    (1, 8)
    """
    if device.type != "cuda":
        return 1
    return PASSES_A_LOOK if are_guessed else TOKENS_A_LOOK


class Watch:
    """Looks every few tokens which answers go on, at a copy that began at the look before.

    A device works through what the host has asked of it some time after, so reading a value holds
    the host up until all is done, and the device then idles until the host has caught up. A copy
    that is some tokens old is there already; an answer that has ended goes on a little for nothing,
    and what it writes behind its end is not read. On a CPU looking costs nothing, and is done at
    every token.

    Args:
        device: Where the answers are written.
        tokens_a_look: How many tokens pass from one look to the next; None as
            `tokens_between_looks` says. At 1 the flags are those of this very token.
    """

    def __init__(self, device: torch.device, tokens_a_look: int | None = None) -> None:
        self._is_apart = device.type == "cuda"
        self._tokens = tokens_a_look or tokens_between_looks(device)
        self.is_exact = self._tokens == 1
        """Whether a look tells what is so at this very token, and none is left out."""
        self._copy: torch.Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def is_due(self, num_written: int) -> bool:
        """Whether it is time to look.

        Args:
            num_written: Tokens that each answer has by now; where a pass writes several, passes.
        """
        return num_written % self._tokens == 0

    def seen(self, state: torch.Tensor) -> list[int]:
        """What was so of each answer at the last look.

        Args:
            state: (rows,) what is so now: 1 where an answer has a token and goes on, as all have at
                first.
        """
        if self.is_exact:
            return self.read(state)
        if self._copy is None:
            return [1] * len(state)
        if self._copied is not None:
            # long done, unless the device is behind by as many tokens: then this holds the host
            # back, not the device
            self._copied.synchronize()
        return self.read(self._copy)

    def note(self, state: torch.Tensor) -> None:
        """Begins the copy that the next look reads; call it after each look."""
        if self.is_exact:
            return
        if not self._is_apart:
            self._copy = state.clone()
            return
        self._copy = torch.empty(len(state), dtype=state.dtype, pin_memory=True)
        self._copy.copy_(state, non_blocking=True)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record()

    @staticmethod
    def read(state: torch.Tensor) -> list[int]:
        """A state (rows,) as the host's own; flags are numbers."""
        found: list[int] = state.tolist()
        return found
