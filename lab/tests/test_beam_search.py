"""Beam search against an exhaustive one, a greedy one and a plain one, on models whose every probability is known."""

import itertools
import math

import pytest
import torch

from autolr_lab.workloads.beam_search import END, beam_search

WORDS = 3  # tokens beside padding, start and end


def chances(sentence, prefix):
    """Log-probabilities of a model that knows its whole prefix, drawn at random for each prefix and sentence."""
    generator = torch.Generator().manual_seed(hash((sentence, *prefix)) % 2**40)
    return (2 * torch.randn(3 + WORDS, generator=generator, dtype=torch.float64)).log_softmax(0)


class Toy:
    """Decodes with `chances`, or with other ones; what it knows of a hypothesis is the hypothesis."""

    def __init__(self, sentences, chances=chances):
        self.sentences, self.chances, self.prefixes = list(sentences), chances, None

    def next(self, tokens):
        assert tokens.shape[0] == len(self.sentences)
        if self.prefixes is None:
            assert (tokens == 1).all()  # the start
            self.prefixes = [[()] * tokens.shape[1] for _ in self.sentences]
        else:
            rows = zip(self.prefixes, tokens.tolist(), strict=True)
            self.prefixes = [[(*p, t) for p, t in zip(row, more, strict=True)] for row, more in rows]
        rows = zip(self.sentences, self.prefixes, strict=True)
        return torch.stack([torch.stack([self.chances(s, p) for p in row]) for s, row in rows]) if self.sentences else 0

    def keep(self, sentences, parents):
        rows = zip(sentences.tolist(), parents.tolist(), strict=True)
        self.prefixes = [[self.prefixes[row][parent] for parent in chosen] for row, chosen in rows]
        self.sentences = [self.sentences[row] for row in sentences.tolist()]


def score(sentence, hypothesis, penalty):
    whole = (*hypothesis, END)
    total = sum(float(chances(sentence, whole[:i])[token]) for i, token in enumerate(whole))
    return total / len(whole) ** penalty


def exhaustive(sentence, longest, penalty):
    words = range(3, 3 + WORDS)
    hypotheses = [list(h) for length in range(longest) for h in itertools.product(words, repeat=length)]
    return max(hypotheses, key=lambda h: score(sentence, h, penalty))


def plain(sentence, longest, beam, penalty):
    """The rule of the module's docstring with lists, one sentence, no tensor."""
    alive, finished = [((), 0.0)], []
    for length in range(1, longest + 1):
        ways = [
            ((*prefix, token), total + float(chances(sentence, prefix)[token]))
            for prefix, total in alive
            for token in range(END, 3 + WORDS if length < longest else END + 1)
        ]
        ways.sort(key=lambda way: -way[1])
        finished += [(total / length**penalty, way[:-1]) for way, total in ways[:beam] if way[-1] == END]
        if len(finished) >= beam:
            break
        alive = [(way, total) for way, total in ways if way[-1] != END][:beam]
    return list(max(finished)[1])


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_a_beam_as_wide_as_all_there_is_finds_the_best_of_all(penalty):
    sentences, longest = range(20), [1, 2, 3, 4] * 5
    found = beam_search(Toy(sentences), torch.tensor(longest), beam=1 + 3 + 9 + 27, penalty=penalty)
    assert found == [exhaustive(s, n, penalty) for s, n in zip(sentences, longest, strict=True)]


@pytest.mark.parametrize("beam", [2, 3, 5])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_narrow_beam_follows_the_rule(beam, penalty):
    sentences, longest = range(40), [1, 3, 6, 8] * 10
    found = beam_search(Toy(sentences), torch.tensor(longest), beam, penalty)
    assert found == [plain(s, n, beam, penalty) for s, n in zip(sentences, longest, strict=True)]


def test_a_sentence_is_translated_the_same_in_whatever_company():
    longest = [3, 8, 5, 1, 8, 6, 2]
    together = beam_search(Toy(range(7)), torch.tensor(longest), beam=3)
    backwards = beam_search(Toy(range(6, -1, -1)), torch.tensor(longest[::-1]), beam=3)
    alone = [beam_search(Toy([s]), torch.tensor([n]), beam=3)[0] for s, n in enumerate(longest)]
    assert together == backwards[::-1] == alone


def test_nothing_is_longer_than_allowed_and_what_is_cut_there_ends_there():
    def never_ends(sentence, prefix):
        return torch.tensor([-math.inf, -math.inf, -50.0, -0.1, -2.4, -math.inf], dtype=torch.float64)

    found = beam_search(Toy(range(3), never_ends), torch.tensor([1, 2, 7]), beam=2)
    assert found == [[], [3], [3] * 6]


# Ending at once has the chance 0.4; else comes a word (0.6), and after it the end (0.6) or another (0.4), and so on.
def short_or_long(sentence, prefix):
    end = 0.6 if prefix else 0.4
    return torch.tensor([0.0, 0.0, end, 1 - end, 0.0, 0.0], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("penalty", "best"),
    [
        (0.0, []),  # 0.4 > 0.6 0.6
        (1.0, [3]),  # log(0.36) / 2 = -0.51 > log(0.4) = -0.92; two words: log(0.144) / 3 = -0.65
        (4.0, [3] * 4),  # by hand: log(0.4), log(0.36) / 16, log(0.144) / 81, ...: the longest that is allowed
    ],
)
def test_a_finished_hypothesis_is_kept_and_its_length_weighed_as_the_penalty_says(penalty, best):
    assert beam_search(Toy([0], short_or_long), torch.tensor([5]), beam=9, penalty=penalty) == [best]


def test_padding_and_the_start_are_never_said_however_likely():
    def wrong(sentence, prefix):
        return torch.tensor([0.5, 0.4, 0.02, 0.08, 0.0, 0.0], dtype=torch.float64).log()

    assert beam_search(Toy([0], wrong), torch.tensor([3]), beam=2) == [[3]]


def test_a_model_that_tells_nothing_translates_into_nothing():
    def lost(sentence, prefix):
        return torch.full((6,), math.nan if sentence == 0 else -math.inf, dtype=torch.float64)

    found = beam_search(Toy([0, 1, 2], lambda s, p: lost(s, p) if s < 2 else chances(s, p)), torch.full((3,), 4))
    assert found == [[], [], plain(2, 4, 5, 1.0)]
