"""Rows of tokens for language models: two fixed texts, and artificial languages drawn from a fixed seed."""

import contextlib
import io
import unicodedata
from functools import cache

import torch
from torch import Tensor

from autolr_lab.zoo.data import drawing, hold_out
from autolr_lab.zoo.task import Data


def encoded(text: str) -> tuple[Tensor, int]:
    """The characters of a text as numbers, and how many different ones there are."""
    alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
    return torch.tensor([alphabet[character] for character in text]), len(alphabet)


def windows(tokens: Tensor, length: int, stride: int) -> Tensor:
    """All windows of ``length`` tokens that begin at a multiple of ``stride``."""
    return tokens.unfold(0, length, stride).contiguous()


@cache
def character_names(length: int = 13) -> Data:
    """Names of characters in version 3.2 of Unicode, which Python carries and which never changes: 29 symbols."""
    names = (unicodedata.ucd_3_2_0.name(chr(point), "") for point in range(0x2FFF))
    tokens, _ = encoded("\n".join(name for name in names if name and not any(c.isdigit() for c in name)))
    return hold_out((windows(tokens, length, length - 1),), 300, "character names")


@cache
def zen(length: int = 13) -> Data:
    """The Zen of Python, 857 characters of 44 kinds: every eighth window of it is held out."""
    with contextlib.redirect_stdout(io.StringIO()):
        import this
    plain = "".join(this.d.get(c, c) for c in this.s)
    tokens, _ = encoded(plain)
    return hold_out((windows(tokens, length, 4),), 40, "zen")


@cache
def markov(symbols: int = 12, length: int = 13) -> Data:
    """A language in which the next symbol depends on the last two."""
    generator = drawing(f"markov {symbols}")
    table = torch.softmax(2 * torch.randn(symbols, symbols, symbols, generator=generator), dim=-1)
    tokens = torch.randint(symbols, (9000, length), generator=generator)
    for place in range(2, length):
        chances = table[tokens[:, place - 2], tokens[:, place - 1]]
        tokens[:, place] = torch.multinomial(chances, 1, generator=generator)[:, 0]
    return hold_out((tokens,), 300, "markov")


@cache
def brackets(length: int = 13) -> Data:
    """Nested brackets of three kinds: the kind that closes is always the one opened last; 0 to 2 open, 3 to 5 close."""
    draws = torch.rand(9000, length, 2, generator=drawing("brackets")).tolist()
    rows = []
    for row in draws:
        stack: list[int] = []
        tokens = []
        for close, kind in row:
            if stack and close < 0.5:
                tokens.append(3 + stack.pop())
            else:
                stack.append(int(3 * kind))
                tokens.append(stack[-1])
        rows.append(tokens)
    return hold_out((torch.tensor(rows),), 300, "brackets")
