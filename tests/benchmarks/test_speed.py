"""The speed benchmark answers its questions and prints what it found."""

from benchmarks.speed import answer, markdown


def test_an_answer_is_counted_and_printed() -> None:
    """A fresh interpreter finds a whole frontier, and its row in the table says so."""
    found = answer(("8b", 8, "h100", 8192, 64, "core"), 1)
    figures = {
        "date": "2026-01-02",
        "versions": {"numpy": "2"},
        "processor": "abacus",
        "n_cores": 2,
        "load_before": 0.1,
        "repeats": 1,
        "answers": [found],
        "rates": [],
    }

    assert found["complete"]
    assert found["fits"] == found["priced"] + sum(found["cut_by"].values())
    assert f"| 8b, 8 h100, core | {found['space']:.2g} | {found['legal']:.4g} |" in markdown(
        figures
    )
