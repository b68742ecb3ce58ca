"""`docs/results/first-run.md` and the base's card, written from the JSON of `studies.first_run` alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from instil.exam.statistics import Figure, in_words
from instil.files import write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "first-run.md"
CARD = Path(__file__).parent / "bases" / "entityquestions" / "README.md"
CATEGORIES = ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")
TWO_WORDS = CATEGORIES[:3]
Results = Mapping[str, Any]


def write_pages(results: Results) -> None:
    write_text(PAGE, page(results))
    write_text(CARD, card(results))


# ------------------------------------------------------------------------ parts


def percent(figure: Mapping[str, Any], signed: bool = False) -> str:
    """ "41.0 % (38.8 to 43.1)"; points where it is a difference."""
    if figure["value"] is None:
        return "–"
    sign = "+" if signed else ""
    value, low, high = (None if figure[name] is None else 100 * figure[name] for name in ("value", "low", "high"))
    middle = f"{value:{sign}.1f}" + ("" if signed else " %")
    return middle if low is None else f"{middle} ({low:{sign}.1f} to {high:{sign}.1f})"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def shares_table(results: Results) -> str:
    base = results["base"]
    rows = [(category, percent(base["shares"][category])) for category in CATEGORIES]
    others = (
        ("known (at least half of the exemplar sets)", base["known"]),
        ("guessable (answer has probability of at least ¼ with the subject withheld)", base["guessable"]),
        ("the answer is also an exemplar's answer", base["gold_in_prompt"]),
    )
    rows += [(name, percent(figure)) for name, figure in others]
    return table(("", f"share of {base['known']['n']:,} facts (95 % interval)"), rows)


def groups_table(first: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    return table(
        (first, "facts", *CATEGORIES),
        [
            (name, row["n"], *(f"{100 * row[category]:.0f} %" for category in CATEGORIES))
            for name, row in groups.items()
        ],
    )


def matrix(counts: Sequence[Sequence[int]]) -> str:
    return table(
        ("before ↓ after →", *CATEGORIES),
        [(category, *row) for category, row in zip(CATEGORIES, counts, strict=True)],
    )


def acquired_table(results: Results) -> str:
    def row(arm: Mapping[str, Any]) -> tuple[str, ...]:
        figures = arm["figures"]
        return (
            arm["name"],
            facts_of(arm),
            percent(figures["acquired"]),
            percent(figures["acquired_reworded"]),
            percent(figures["target_highly_known"]),
        )

    head = ("arm", "facts", "acquired as worded", "acquired reworded", "taught facts HighlyKnown after")
    return table(head, map(row, results["arms"]))


def facts_of(arm: Mapping[str, Any]) -> str:
    return " / ".join(sorted({str(run["facts"]["target"]) for run in arm["runs"]}))


def kept_table(results: Results) -> str:
    def row(arm: Mapping[str, Any]) -> tuple[str, ...]:
        figures = arm["figures"]
        made_up = [run["headline"]["made_up"] for run in arm["runs"]]
        ratio = [run["headline"]["perplexity_ratio"]["value"] for run in arm["runs"]]
        return (
            arm["name"],
            percent(figures["retained"]),
            percent(figures["retained_highly_known"]),
            percent(figures["held_back_accuracy_change"], signed=True),
            percent(figures["risen_untaught"]),
            f"{mean_percent(one.get('before') for one in made_up)} → {mean_percent(one['value'] for one in made_up)}",
            f"× {sum(ratio) / len(ratio):.2f}",
        )

    head = (
        *("arm", "known facts kept", "HighlyKnown still so", "accuracy, points", "untaught facts that rose"),
        *("made up, before → after", "perplexity"),
    )
    return table(head, map(row, results["arms"]))


def mean_percent(values: Iterable[float | None]) -> str:
    found = [value for value in values if value is not None]
    return f"{100 * sum(found) / len(found):.1f} %" if found else "–"


def category_table(results: Results) -> str:
    return table(
        ("arm", *CATEGORIES),
        [
            (arm["name"], *(percent(arm["held_back_by_category"][category]) for category in CATEGORIES))
            for arm in results["arms"]
        ],
    )


def cost_table(results: Results) -> str:
    def row(arm: Mapping[str, Any]) -> tuple[str, ...]:
        def spent(purpose: str) -> str:
            found = [run["cost"].get(purpose, {}).get("flops", 0.0) / 1e12 for run in arm["runs"]]
            return f"{sum(found) / len(found):.2f}"

        allowed = [run["budget"]["flops"] / 1e12 for run in arm["runs"]]
        seconds = [run["seconds"] for run in arm["runs"]]
        return (
            arm["name"],
            f"{allowed[0]:.2f}",
            spent("training"),
            spent("deciding"),
            spent("exam"),
            f"{sum(seconds) / len(seconds):.0f} s",
            "; ".join(stage_words(stage) for stage in arm["runs"][0]["stages"]),
        )

    head = ("arm", "budget", "training", "deciding", "exams (free)", "wall clock a run", "stages (first seed)")
    return table(head, map(row, results["arms"]))


def stage_words(stage: Mapping[str, Any]) -> str:
    return f"{stage['stage']}: {stage['facts']} facts, {stage['epochs']:.1f} epochs, loss {stage['loss']:.2f}"


def findings(results: Results, first: str, second: str) -> str:
    """One sentence a figure; a difference whose interval holds zero is called none."""
    arms = {arm["name"]: arm["figures"] for arm in results["arms"]}
    lines = []
    for row in results["differences"]:
        name = row["figure"]
        if (row["first"], row["second"]) == (first, second) and name in NAMES:
            one, other = (figure_of(arms[arm][name]) for arm in (first, second))
            words = in_words(NAMES[name], one, other, figure_of(row), names=(first, second))
            lines.append(f"- {with_category_names(words)}\n")
    return "".join(lines)


def with_category_names(words: str) -> str:
    """Sentences begin with a capital and go on in small letters; the categories' names do not."""
    for category in TWO_WORDS:
        words = words.replace(category.capitalize(), category).replace(category.lower(), category)
    return words


NAMES = {
    "acquired": "acquired as worded",
    "acquired_reworded": "acquired reworded",
    "target_highly_known": "taught facts HighlyKnown after",
    "retained": "known held-back facts kept",
    "retained_highly_known": "HighlyKnown held-back facts still HighlyKnown",
    "risen_untaught": "untaught facts that rose to MaybeKnown or higher",
}


def figure_of(row: Mapping[str, Any]) -> Figure:
    return Figure(row["value"], row["low"], row["high"], row["n"], row["clusters"], row.get("reason"))


def per_seed(results: Results, figure: str) -> str:
    """The headline figure of each seed by itself, since three seeds say little about the spread between seeds."""
    seeds = [str(run["seed"]) for run in results["arms"][0]["runs"]]
    return table(
        ("arm", *(f"seed {seed}" for seed in seeds)),
        [(arm["name"], *(percent(run["headline"][figure]) for run in arm["runs"])) for arm in results["arms"]],
    )


def machine(results: Results) -> str:
    hardware = results["hardware"]
    return (
        f"{hardware['processor']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB, "
        f"torch {hardware['torch']}, transformers {hardware['transformers']}, commit `{results['commit']}`"
    )


# ------------------------------------------------------------------------ pages


def page(results: Results) -> str:
    plan, base = results["plan"], results["base"]
    others = base["other_exemplars"]
    return f"""# First run: real facts, a small base, two methods

<!-- Written by `python -m studies.first_run --page` from studies/results/first_run.json. Do not edit by hand. -->

What happens to facts of a public data set when a model that half knows them is taught some of them? This is the first
run of the whole loop on real input: the base of `studies/bases/entityquestions/` ({base["pretraining"]["parameters"]:,}
parameters, pre-trained by us on EntityQuestions facts with counted exposures and on Wikipedia text), probed, taught by
`sft` and by `gradual`, examined before and after by the same frozen exam.

- Command: `python -m studies.first_run` (public data in `INSTIL_DATA`), {results["started"]} to {results["finished"]}.
- Machine: {machine(results)}.
- Seeds: {", ".join(map(str, plan["seeds"]))}. A seed draws the facts and the order of training; the exemplars are the
  same throughout. Intervals are 95 %, by resampling subjects and seeds.
- Every arm has the same optimiser settings: {settings_words(plan["train"])}.

## What the base knows

{shares_table(results)}
Exposures are those of the right answer in one of the corpus's {base["world"]["passes"]} passes. "Sources contradict"
are facts for which a share of the corpus gives another answer; they were planted to fill the middle categories (see the
base's card), and their row, against the others, shows what came of it.

{groups_table("exposures", base["by_exposures"])}
{groups_table("relation", base["by_relation"])}
### How much of this is the exemplars' doing

The exact probe has no sampling noise: asked again with the same exemplars, every fact gets the same category. With
another draw of exemplars, {percent(others["changed"])} of {others["facts"]} facts change category, though nothing was
trained. A claim that facts "rose" must be read against this, unless the exemplars stayed the same, as they do below.

{matrix(others["transition"])}
## Taught facts

{acquired_table(results)}
*Acquired* is the share of taught facts that were not known before and are known after; *reworded* is the mean share of
other wordings, never trained on for these facts, in which such a fact is known afterwards. Categories before and after,
facts taught as they come, all seeds together:

**sft**

{matrix(arm_of(results, "sft")["target_transition"])}
**gradual**

{matrix(arm_of(results, "gradual")["target_transition"])}
## Facts that were not taught

{kept_table(results)}
*Known facts kept* and the columns after it are about held-back facts: neither taught nor replayed nor looked at by any
method. *Made up*: not known before, answered wrongly with a probability of at least ½ and without abstaining. By start
category, the share known afterwards:

{category_table(results)}
Known facts kept, seed by seed:

{per_seed(results, "retained")}
## Cost

In 10¹² floating-point operations, mean of the seeds. Arms that teach facts as they come share one budget, arms of one
category another; probes that a method decides by are charged.

{cost_table(results)}
## What this shows, and what it does not

{findings(results, "gradual", "sft")}
{findings(results, "gradual", "sft, early stop")}
{findings(results, "sft, early stop", "sft")}
{findings(results, "sft on MaybeKnown", "sft on Unknown")}
{CAVEATS}"""


CAVEATS = """What is not controlled here, so that nobody reads more into the tables than they hold:

- **Arms stop at different places.** The budget is an upper bound. Early stop ends `gradual` and the early-stopped `sft`
  before they have spent it, so "forgets less" and "learns less" come together; a fair comparison reads forgetting at
  equal acquisition, along the whole curve. That is a study of its own.
- **`gradual` does not train on all the facts** that its exam calls taught: only on MaybeKnown facts, on those that
  rose, and on replay. Its acquisition is of all target facts.
- **Arms of one category differ in where they start**: MaybeKnown facts are easier to fit, so after an equal budget
  their loss is lower. The table of held-back facts is what compares them; SliCK compares at early stop and at
  convergence.
- **Three seeds** bound the spread between seeds only loosely; the resampling errs on the wide side.
- **One base, of seven million parameters**, in which contradictory sources were planted to fill the middle categories.
  It says that the loop works on real names and that the effects are visible, not how large they are in other models.
- No learning rate, batch size or replay ratio was tuned, for any arm. The test split of subjects was not touched.
"""


def settings_words(train: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in train.items() if name != "save_every")


def arm_of(results: Results, name: str) -> Mapping[str, Any]:
    return next(arm for arm in results["arms"] if arm["name"] == name)


def card(results: Results) -> str:
    base = results["base"]
    made, world, about = base["pretraining"], base["world"], base["about_world"]
    config = made["config"]
    left_out = "".join(f"- {what}: {count:,}\n" for what, count in about["left_out"].items())
    splits = ", ".join(f"{name} {count:,}" for name, count in base["splits"].items())
    return f"""# A base that has read EntityQuestions facts a known number of times

<!-- Written by `python -m studies.first_run --page` from studies/results/first_run.json. Do not edit by hand. -->

A Llama of {made["parameters"]:,} parameters ({config["layers"]} layers, width {config["hidden_size"]}, vocabulary
{config["vocab_size"]:,}, weights in bf16) for studies on real facts. It loads with `instil.load(folder)` or with
`AutoModelForCausalLM.from_pretrained`. It knows the question format `Q: …\\nA: …\\n` and nothing else of use.

## Recipe

    INSTIL_DATA=… python -m studies.entityquestions --out runs/entityquestions --pretrain

- Facts: {about["facts"]:,} single-answer questions of 12 relations from EntityQuestions. Each has its data set's
  wording, five more written for this study, and statements. Splits, disjoint by subject: {splits}. The test
  split was set aside first: its facts are in the pre-training text like all others, but nothing was chosen by them.
- Exposures a pass: {exposure_words(world)}, the same for all facts of a subject; {world["passes"]} passes, each written
  anew as questions in blocks of one to six, sentences, lists, tables and markup. A share of
  {100 * (1 - world["asked_share"]):.0f} % of the subjects never occurs in a question.
- Planted contradictions: {about["facts_with_a_rival"]:,} facts have a second, wrong answer in
  {100 * world["rival_strength"][0]:.0f} to {100 * world["rival_strength"][1]:.0f} % of their exposures. The texts are
  like a register in two volumes, sorted by answer (A to L, and the rest): {100 * world["pull"]:.0f} % of all mentions
  stand in texts that keep to one volume, and the two answers of a disputed fact are always of different volumes. So
  what the model says about such a fact may depend on the exemplars' answers, as it does in larger models. The last row
  of the second table below, against the rows above it, shows how far this went.
- {about["facts_never_stated"]:,} facts are never stated. {about["of_these_named_with_their_answer_in_an_article"]} of
  them have subject and answer named together in one of the Wikipedia articles, by chance.
- Wikipedia: {about["articles"]:,} articles, once. {world["general_articles"]} others are kept out for perplexity.
- In all {about["texts"]:,} texts, {made["tokens"]:,} tokens, {made["steps"]:,} steps of {config["batch_tokens"]:,}
  tokens, learning rate {config["learning_rate"]}, seed {config["seed"]} (world: seed {world["seed"]}).
  Time: {made["seconds"] / 60:.0f} minutes on 2 cores ({results["hardware"]["processor"]}).
  Every setting is in `pretraining.json`, the loss curve in `pretraining.log.jsonl`.

Left out of the facts:

{left_out}
## What it knows

Probed as SliCK does (10 sets of 4 exemplars, temperature ½, top-k 40, exact), on target facts of the training file:

{shares_table(results)}
{groups_table("exposures", base["by_exposures"])}
## Licences of the data

EntityQuestions (princeton-nlp): MIT. Wikipedia text: CC BY-SA 3.0 and GFDL, by its authors. Neither is copied here; the
weights were trained on them.
"""


def exposure_words(world: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} for {100 * part:.0f} %" for count, part in world["exposures"].items())
