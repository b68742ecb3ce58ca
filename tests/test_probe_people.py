"""What people see of a mastery map: the table by relation, the guesses in it, the notebook, the warnings."""

from __future__ import annotations

import io
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.cli import main
from instil.cli.showing import guess_line, known_line, relation_table, show_mastery, shown_warnings
from instil.cli.terminal import Terminal
from instil.errors import InputError
from instil.facts import Fact, FactSet
from instil.model import save
from instil.probe import (
    Category,
    ExemplarSets,
    Mastery,
    MasteryMap,
    ProbeConfig,
    any_of,
    categorise,
    could_be_guessed,
    draw_exemplars,
    exemplar_sets,
)
from instil.probe.figures import Figures
from instil.probe.tally import Tally, tallies, tallies_in
from tests.probing import taught_lm

HIGH, MAYBE, WEAK, UNKNOWN = Category


def _row(fact_id: str, category: Category, prior: float | None, sampled: float = 0.9, **more: Any) -> Mastery:
    greedy = {HIGH: 1.0, MAYBE: 0.5, WEAK: 0.0, UNKNOWN: 0.0}[category]
    values: dict[str, Any] = {
        "relation": "r", "question": "Q?", "answer": "A", "p_greedy": greedy, "p_sampled": sampled,
        "p_any": 0.9, "gold_in_prompt": False, "greedy_answer": "A", "p_by_set": (sampled,) * 10,
    }  # fmt: skip
    return Mastery(fact_id=fact_id, category=category, p_prior=prior, **(values | more))


@pytest.mark.parametrize(
    ("category", "prior", "sampled", "guess"),
    [
        (HIGH, 0.5, 0.9, True),
        (HIGH, 0.49, 0.9, False),
        (HIGH, 0.3, 0.3, True),  # the subject changes nothing
        (HIGH, None, 0.9, False),
        (MAYBE, 0.6, 0.9, True),
        (MAYBE, 0.1, 0.9, False),
        (WEAK, 0.001, 0.05, False),  # 1 - 0.999^160 = 0.15
        (WEAK, 0.005, 0.05, True),  # 1 - 0.995^160 = 0.55
        (UNKNOWN, 0.9, 0.001, False),
    ],
)
def test_what_could_be_guessed(category: Category, prior: float | None, sampled: float, guess: bool) -> None:
    assert could_be_guessed(_row("f", category, prior, sampled)) is guess


@pytest.mark.parametrize("threshold", [0, -1, 1.5])
def test_a_threshold_that_is_none_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        could_be_guessed(_row("f", HIGH, 0.5), threshold)


@given(
    prior=st.none() | st.floats(0, 1),
    by_set=st.lists(st.floats(0, 1), min_size=1, max_size=10),
    right=st.integers(0, 10),
    low=st.floats(0.01, 1),
    high=st.floats(0.01, 1),
)
def test_a_higher_threshold_finds_fewer_guesses(
    prior: float | None, by_set: list[float], right: int, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    p_any = any_of(by_set, 16)
    row = _row("f", categorise(right / 10, p_any), prior, sum(by_set) / len(by_set), p_by_set=tuple(by_set))
    assert could_be_guessed(row, high) <= could_be_guessed(row, low)
    if row.category is UNKNOWN or prior is None:
        assert not could_be_guessed(row, low)


def test_without_guesses_leaves_the_others_as_they_are() -> None:
    mastery = MasteryMap(
        [_row("a", HIGH, 0.9), _row("b", HIGH, 0.1), _row("c", UNKNOWN, 0.9), _row("d", MAYBE, None)], warnings=["w"]
    )
    assert mastery.guesses() == {"a"}
    left = mastery.without_guesses()
    assert list(left) == [mastery[1], mastery[2], mastery[3]]
    assert left.warnings == ("w",)
    assert mastery.guesses(threshold=0.05) == {"a", "b"}
    assert len(mastery) == 4


def _relations(sizes: dict[str | None, int]) -> MasteryMap:
    rows = [
        _row(f"{relation}-{n}", tuple(Category)[n % 4], 0.9 if n % 8 == 0 else 0.0, relation=relation)
        for relation, size in sizes.items()
        for n in range(size)
    ]
    return MasteryMap(rows)


def test_tallies_add_up_as_the_naive_way_does() -> None:
    mastery = _relations({"small": 3, "large": 17, None: 5, "also small": 3})
    total, parts = tallies(mastery)
    assert [one.relation for one in parts] == ["large", "", "also small", "small"]
    assert total.counts == mastery.counts()
    assert {one.relation: one.counts for one in parts} == mastery.by_relation()
    assert total.known == sum(row.known for row in mastery)
    assert sum(total.guesses.values()) == len(mastery.guesses())
    assert total.known_guesses == sum(row.known for row in mastery if row.fact_id in mastery.guesses())
    for one in (total, *parts):
        own = [row for row in mastery if one is total or (row.relation or "") == one.relation]
        assert one.to_dict()["p_sampled"] == pytest.approx(sum(row.p_sampled for row in own) / len(own))
        assert one.to_dict()["known"] == pytest.approx(sum(row.known for row in own) / len(own))


ROWS = st.tuples(
    st.sampled_from(["r", "s", None]), st.sampled_from(Category), st.none() | st.floats(0, 1), st.floats(0, 1)
)


@given(st.lists(ROWS, min_size=1, max_size=40))
def test_a_summary_has_all_that_the_rows_add_up_to(values: list[tuple[Any, ...]]) -> None:
    rows = [_row(str(n), kind, prior, p, relation=name) for n, (name, kind, prior, p) in enumerate(values)]
    total, parts = tallies(rows)
    written = json.loads(json.dumps({"by_relation": {one.relation: one.to_summary() for one in parts}}))
    read = tallies_in(written)
    assert read is not None
    for one, again in zip([total, *parts], [read[0], *read[1]], strict=True):
        assert (again.relation, again.counts, again.guesses) == (one.relation, one.counts, one.guesses)
        assert (again.known, again.known_guesses) == (one.known, one.known_guesses)
        assert again.to_dict() == {
            name: pytest.approx(value) if isinstance(value, float) else value for name, value in one.to_dict().items()
        }


def _summary(mastery: MasteryMap, by_relation: dict[str, Any]) -> dict[str, Any]:
    known = {"value": 0.5, "low": 0.4, "high": 0.6}
    return {"config": {"samples": 16}, "headline": {"known": known}, "by_relation": by_relation}


def test_the_map_is_not_read_for_a_table_that_the_summary_has(tmp_path: Path) -> None:
    """And is for one of an earlier version, which has counts alone; both show the same."""
    mastery = _relations({"small": 3, "large": 17, None: 5})
    entries = {one.relation: one.to_summary() for one in tallies(mastery)[1]}
    counts = {name: {str(kind): entry[kind] for kind in Category} for name, entry in entries.items()}

    def shown(rows: MasteryMap, by_relation: dict[str, Any]) -> str:
        terminal = Terminal(out=io.StringIO())
        show_mastery(terminal, rows, _summary(mastery, by_relation), tmp_path)
        return terminal.out.getvalue()  # type: ignore[attr-defined,no-any-return]

    unread = MasteryMap([])
    assert shown(unread, entries) == shown(mastery, entries) == shown(mastery, counts)
    assert "large" in shown(unread, entries) and "could be guessed" in shown(unread, entries)
    assert tallies_in({"by_relation": counts}) is None


@pytest.mark.parametrize(("samples", "guesses"), [(16, 1), (1, 0)])
def test_guesses_of_a_summary_are_by_the_samples_of_its_probe(samples: int, guesses: int) -> None:
    figures = Figures(1, samples)
    figures.add(MasteryMap([_row("f", WEAK, 0.005, 0.05)]).to_table(), [Fact("f", "Q?", ("A",), relation="r")])
    assert figures.by_relation()["r"]["guesses"][str(WEAK)] == guesses


def test_relations_without_priors_have_no_guesses_in_a_summary() -> None:
    _, (one,) = tallies([_row("a", HIGH, None), _row("b", UNKNOWN, None)])
    entry = one.to_summary()
    assert entry["guesses"] is entry["known_without_guesses"] is entry["p_prior"] is None
    assert entry["with_prior"] == 0 and entry["known"] == 0.5
    assert Tally.of_summary("r", entry) == one


def test_a_data_frame_by_relation() -> None:
    frame = _relations({"r": 8, None: 4}).to_pandas(by="relation")
    assert frame["relation"].tolist() == ["r", ""]
    assert frame["facts"].tolist() == [8, 4]
    assert frame.loc[0, [str(category) for category in Category]].tolist() == [2, 2, 2, 2]
    assert frame["known"].tolist() == [0.5, 0.5]
    assert frame["known_without_guesses"].tolist() == [3 / 8, 1 / 4]
    assert len(_relations({}).to_pandas(by="relation").columns) == len(frame.columns)
    with pytest.raises(InputError, match="subject"):
        _relations({}).to_pandas(by="subject")  # type: ignore[arg-type]


def test_a_plot_has_all_and_the_largest_relations() -> None:
    figure = _relations({f"r{n}": n + 1 for n in range(6)} | {"<b>x</b>": 9}).plot(relations=3)
    assert list(figure.layout.yaxis.ticktext) == ["all", "&lt;b&gt;x&lt;/b&gt;", "r5", "r4"]
    assert all(sum(bar.x[place] for bar in figure.data) == pytest.approx(1) for place in range(4))
    assert "3 largest of 7" in figure.layout.title.text
    assert len(_relations({"r": 4}).plot().data[0].x) == 1
    with pytest.raises(InputError, match="nothing to plot"):
        _relations({}).plot()


def test_without_plotly_a_plot_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(InputError, match="plotly"):
        _relations({"r": 4}).plot()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.opened.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_notebook_shows_the_relations_and_runs_nothing_of_them() -> None:
    hostile = "<script>alert(1)</script>"
    page = _Tags()
    mastery = _relations({hostile: 9} | {f"r{n}": 1 for n in range(30)})
    page.feed(mastery._repr_html_())
    assert "script" not in page.opened
    assert hostile in page.text
    assert page.opened.count("tr") == 1 + 20 + 1
    assert "11 more relations" in "".join(page.text)
    assert "Mastery of 0 facts" in _relations({})._repr_html_()


def _shown(mastery: MasteryMap, columns: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "dumb")
    screen = Screen()
    Terminal(out=screen).show(relation_table(*tallies(mastery)))
    return screen.getvalue().splitlines()


def test_the_table_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    mastery = _relations({"place of birth of the person": 120, "\x1b[31mred": 4} | {f"r{n}": 1 for n in range(30)})
    lines = _shown(mastery, 80, monkeypatch)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in text
    for head in ("relation", "facts", "highly", "maybe", "weakly", "unknown", "known", "no guess"):
        assert head in text
    assert [line.split()[1] for line in lines if line.strip().startswith("all")] == ["154"]
    assert sum(line.split()[:1] == [f"r{n}"] for line in lines for n in range(30)) == 18


def test_one_relation_needs_no_line_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _shown(_relations({"born": 8}), 80, monkeypatch)
    assert [line.split()[0] for line in lines if line.split()[1:2] == ["8"]] == ["born"]


def test_the_lines_under_the_table() -> None:
    mastery = MasteryMap([_row("a", HIGH, 0.9), _row("b", HIGH, 0.1), _row("c", UNKNOWN, None)])
    total, _ = tallies(mastery)
    unjudged = "(1 fact cannot be judged: its question names no subject)"
    assert guess_line(total) == f"Of 2 HighlyKnown, 1 could be guessed without the subject {unjudged}."
    assert "(2 facts cannot be judged: their questions name no subject)" in str(
        guess_line(tallies([*mastery, _row("d", HIGH, None)])[0])
    )
    summary = {"headline": {"known": {"value": 2 / 3, "low": 0.2, "high": 0.9}}}
    assert known_line(total, summary) == "Known: 2 of 3 facts, 66.7 % (95 % interval 20.0 % to 90.0 %)."
    assert guess_line(tallies([_row("a", HIGH, None)])[0]) is None


def test_warnings_are_few_and_say_where_the_rest_is() -> None:
    lines = [f"line {n}" for n in range(8)]
    assert shown_warnings(lines, "summary.json") == [*lines[:5], "and 3 more, in summary.json"]
    assert shown_warnings(lines[:5], "summary.json") == lines[:5]


def test_each_relation_short_of_exemplars_has_one_line() -> None:
    sizes = {"none": 0, "few": 2, "some": 8, "enough": 12}
    facts = FactSet(
        Fact(f"{name}-{n}", f"Who is {n}?", ("a",), relation=name) for name, size in sizes.items() for n in range(size)
    )
    found = draw_exemplars(facts, sizes, ProbeConfig())
    assert [line.split(";")[0] for line in found.warnings] == [
        "relation few: 2 exemplars, fewer than the 4 of a prompt",
        "relation none: 0 exemplars, fewer than the 4 of a prompt",
        "relation some: 8 exemplars",
    ]
    fewer = draw_exemplars(facts, ["enough"], ProbeConfig(exemplar_sets=3))
    assert fewer.warnings == ("3 exemplar sets; with fewer than 10, known facts are taken for Unknown",)
    same = draw_exemplars(facts, ["enough"], ProbeConfig(shots=12))
    assert [line.split(";")[0] for line in same.warnings] == [
        "relation enough: 12 exemplars make only 1 different sets"
    ]


def test_exemplar_sets_are_taken_as_they_are() -> None:
    given = ExemplarSets({"": ((),)})
    assert exemplar_sets(FactSet(()), given) is given


def test_the_command_shows_the_map_its_guesses_and_few_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lm, facts = taught_lm()
    save(lm, tmp_path / "model")
    FactSet(
        Fact(f.id, f.question, f.answers, subject=f.subject, relation=f"{f.relation} {n}") for n, f in enumerate(facts)
    ).write(tmp_path / "facts.jsonl")
    words = ["probe", str(tmp_path / "model"), str(tmp_path / "facts.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*words, "--set", "exemplar_sets=2"]) == 0
    out, err = capsys.readouterr()
    assert "could be guessed without the subject" in out
    assert out.count("born") + out.count("job") == 16
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    _, parts = tallies(MasteryMap.load(tmp_path / "out" / "mastery.parquet"))
    assert found["by_relation"] == {one.relation: one.to_summary() for one in parts}
    notes = [line for line in err.splitlines() if line.startswith("note:")]
    assert len(notes) == 6
    assert notes[-1] == f"note: and 12 more, in {tmp_path / 'out' / 'summary.json'}"
    assert len(json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"]) == 17
