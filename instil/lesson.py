"""`Lesson`: what a method is given, and all that it may do.

A method touches the world only through these verbs. Each verb is durable: its result is written before it returns, so
that a method that was interrupted is simply run again from its first line, and finished verbs answer from disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil.errors import InputError, RunFailed
from instil.facts import Corpus, Document, Fact, FactSet, Role
from instil.facts.lesson_roles import Roles
from instil.files import fingerprint, read_sealed, refuse_broken, seal
from instil.lesson_hooks import Keep, Record, Rule, Tell, Watch
from instil.lesson_known import Known, doubts_about, examples_of, replayable
from instil.lesson_rows import deciding_row, point_rows
from instil.probe import Category, ExemplarSets, Mastery, MasteryMap, ProbeConfig, questions_of

if TYPE_CHECKING:
    from instil.model import LanguageModel
    from instil.probe import Asked
    from instil.training import (
        Budget,
        Correction,
        Meter,
        Objective,
        Progress,
        Stage,
        TrainConfig,
        TrainResult,
        Weigh,
    )
    from instil.training.stopping import Stop


class Lesson:
    """Data by role, and the verbs `probe`, `mastered`, `train`, `follow`, `start_over`, `no_longer_improving`,
    `reweighed`, `staying_close`, `leaving_alone`, `sparing`, `adding_neurons`, `recalled` and `recited`.

    Attributes:
        roles: the data by role, all that `plan` of a method may know.
        target: the facts to be taught. The questions about `documents` are in the exam only, so not among them.
        practice: documents' questions, for methods that learn how to be asked.
        known: facts for replay, where the user gave some; see `mastered`.
        development: facts for early stop and tuning, never trained on.
        documents: the documents to be taught.
        practice_documents: the documents that `practice` asks about.
        meter: what has been spent, by purpose.
        budget: what may be spent.

    Whoever makes a lesson may give a `watch`, which is shown the model at the end of every whole epoch of every stage:
    `progress.model` has fp32 weights, and adapters beside them where those are trained. It can end nothing, is not
    charged, and leaves the weights as they would have been. When a lesson is resumed, finished stages are not shown
    again; epochs behind an unfinished stage's last checkpoint are trained and shown again, with the same weights.
    """

    def __init__(
        self,
        model: LanguageModel,
        roles: Roles,
        exemplars: ExemplarSets,
        *,
        folder: Path,
        run_id: str,
        probe_config: ProbeConfig,
        budget: Budget,
        meter: Meter,
        seed: int,
        record: Record,
        tell: Tell = lambda what, done, total: None,
        guard: Callable[[Sequence[str]], None] = lambda texts: None,
        tracking: Path | None = None,
        keep: Keep = lambda stage, order, model: None,
        watch: Watch | None = None,
    ) -> None:
        roles.check_disjoint()
        self.roles = roles
        self.target, self.practice, self.known = roles.target, roles.practice, roles.known
        self.development, self.documents = roles.development, roles.documents
        self.practice_documents = roles.practice_documents
        self.budget, self.meter, self.seed, self._start = budget, meter, seed, model
        self._learner: LanguageModel | None = None
        self._exemplars, self._probe_config = exemplars, probe_config
        self._folder, self._run_id, self._record, self._tell = folder, run_id, record, tell
        self._guard, self._keep, self._watch = guard, keep, watch
        self._tracking = tracking or folder / "tracking"
        self._verbs = 0
        self._before = self._state = f"{run_id}:before"
        self._stages: list[str] = []
        self._notes: list[str] = []

    # ---------------------------------------------------------------- looking

    def probe(self, facts: FactSet) -> MasteryMap:
        """How well the model, as it now is, has mastered these facts.

        The answers go to the ledger and the compute is charged to the budget as "deciding".
        """
        from instil.probe import probe

        def do(folder: Path) -> None:
            learner = self._as_examined()
            with self.meter.counting(learner.model, "deciding"):
                seen = probe(
                    learner,
                    facts,
                    self._exemplars,
                    self._probe_config,
                    progress=lambda done, total: self._tell(f"probing {len(facts)} facts", done, total),
                )
            seen.save(folder / "mastery.parquet")

        if not len(facts):
            raise InputError("there is nothing to probe", expected="at least one fact in this role")
        inputs = {"facts": facts.fingerprint, "exemplars": self._exemplars.fingerprint, "state": self._state}
        folder = self._once("probe", inputs, do)
        mastery = MasteryMap.load(folder / "mastery.parquet")
        of = {"run_id": self._run_id, "state_id": self._state, "exemplars_fingerprint": self._exemplars.fingerprint}
        rows = [of | deciding_row(facts.by_id[row.fact_id], row) for row in mastery]
        self._record("answers", rows, f"{self._run_id}/{folder.name}")
        return mastery

    def mastered(self, mastery: MasteryMap | None = None) -> FactSet:
        """The HighlyKnown facts that replay may use: of role `known`, or of the target facts where that role is empty.

        Args:
            mastery: a map of the target facts at hand, which saves probing them again.
        """
        if len(self.known):
            return self.known.only(self.probe(self.known).where(Category.HIGHLY_KNOWN))
        found = mastery if mastery is not None else self.probe(self.target)
        return self.target.only(found.where(Category.HIGHLY_KNOWN))

    def drawn(self, facts: FactSet, count: int) -> FactSet:
        """So many of these facts for replay, by the lesson's seed; a note says where there are fewer."""
        if len(facts) < count:
            self._notes.append(f"{len(facts)} of {count} facts replayed: no more are mastered")
        return facts.sample(count, self.seed)

    def recalled(self, count: int, *, shown: FactSet | None = None) -> FactSet:
        """Questions that the lesson's starting model asks itself, with its own answers: replay without old data.

        What the exam asks is left out, and what names a subject that is taught or tuned by. Charged as "teacher".

        Args:
            count: questions that are wanted; a model that repeats itself gives fewer, which a note then says.
            shown: facts of which two stand before each batch of questions; a base model that never read questions needs
                some to know what is wanted.
        """
        from instil.probe import recall

        def worked(number: int) -> list[tuple[str, str]]:
            return [(one.question, one.answers[0]) for one in (shown or FactSet(())).sample(2, seed=self.seed + number)]

        def do(folder: Path) -> None:
            with self.meter.counting(self._start.model, "teacher"):
                found = recall(
                    self._start, count, behind=worked, allowed=replayable(self.roles, self._guard), seed=self.seed
                )
            FactSet(
                Fact(f"recalled {number}", one.question, (one.answer,), role=Role.KNOWN)
                for number, one in enumerate(found, start=1)
            ).write(folder / "recalled.jsonl")

        given = {"count": count, "seed": self.seed, "shown": shown.fingerprint if shown else "", "state": self._before}
        path = self._once("recall", given, do) / "recalled.jsonl"
        found = FactSet.read(path) if path.stat().st_size else FactSet(())
        if len(found) < count:
            self._notes.append(f"the model asked itself {len(found)} of {count} questions: no more that may be used")
        return found

    def recited(self, count: int) -> Corpus:
        """Texts that the lesson's starting model writes from nothing, as `recalled` has questions: a sample of what it
        was pre-trained on. What names a subject that is taught or tuned by, and what the exam asks, is left out."""
        from instil.probe import recite
        from instil.training.examples import UNFINISHED

        def do(folder: Path) -> None:
            with self.meter.counting(self._start.model, "teacher"):
                found = recite(self._start, count, allowed=replayable(self.roles, self._guard), seed=self.seed)
            Corpus(
                Document(f"recited {number}", one.text, metadata={} if one.ended else {UNFINISHED: True})
                for number, one in enumerate(found, start=1)
            ).write(folder / "recited.jsonl")

        path = self._once("recite", {"count": count, "seed": self.seed, "state": self._before}, do) / "recited.jsonl"
        found = Corpus.read(path) if path.stat().st_size else Corpus(())
        if len(found) < count:
            self._notes.append(f"the model wrote {len(found)} of {count} texts: no more that may be used")
        return found

    def no_longer_improving(self, patience: int = 2, sets: int = 2) -> Stop:
        """Stop when accuracy on the development facts has not risen for `patience` epochs; the best epoch is kept.

        Args:
            patience: epochs to wait for a better one.
            sets: exemplar sets to ask each fact with; fewer than a full probe, since this is charged at every epoch.

        Raises:
            InputError: the lesson has no development facts.
        """
        from instil.training import no_longer_improving

        if not len(self.development):
            raise InputError("early stop needs development facts", field="development", found="none")
        return no_longer_improving(lambda model: self._development_accuracy(sets), patience=patience)

    def reweighed(self, facts: FactSet, rule: Rule, sets: int = 2) -> Weigh:
        """Attention by mastery: before each epoch these facts are probed, and `rule` says how often each occurs in it.

        It is for `train(..., weigh=...)`. Of `facts`, those that the rule leaves out have weight 0 and rest. What the
        stage trains on beside them (facts for replay, documents) has weight 1, unless the rule names it: a fact by its
        id, a document by its original's. An epoch has as many examples whatever the weights, so what counts is how they
        stand to each other. Where all are zero, the stage ends.

        Args:
            facts: what is probed, with the model at the precision that it will be saved in; charged as "deciding".
                Wrong answers are not written out, so one that is right in another spelling counts as wrong.
            rule: a function of nothing but the mastery map, so that a stage that is resumed goes on alike.
            sets: exemplar sets to ask each fact with; all of them where the probe has fewer.

        Raises:
            InputError: there are no facts, or no sets; in training, when the rule names what the stage does not train.
        """
        if not len(facts):
            raise InputError("there is nothing to weigh", field="facts", found="none", expected="at least one fact")
        if sets < 1:
            raise InputError("facts are asked with exemplar sets", field="sets", found=str(sets), expected="at least 1")
        probed, questions = {fact.id for fact in facts}, questions_of(facts)

        def weigh(progress: Progress) -> Mapping[str, float]:
            mastery = MasteryMap(map(Mastery.of, questions, self._glance(facts, sets, decode=False)))
            return {key: 1.0 for key in progress.keys if key not in probed} | dict(rule(mastery))

        return weigh

    # --------------------------------------------------------------- changing

    def adding_neurons(self, facts: FactSet, *, aside: FactSet | None = None) -> int:
        """Add a neuron for each subject of these facts to a layer, which the next `train` gives a value; until then the
        model is what it was. Returns how many: 0, with a note, where its family takes none.

        Args:
            facts: in all wordings that will be trained on.
            aside: questions about other subjects, such as `recalled`: neurons are to be silent there.

        Raises:
            InputError: there are no facts, or neurons were added before.
        """
        from instil.model.neurons import Keys, add, takes_neurons
        from instil.training.keys import find_keys

        learner, aside = self._as_learner(), aside or FactSet(())
        if not takes_neurons(learner):
            self._notes.append(f"no neurons were added: not known how to in {type(learner.model).__name__}")
            return 0

        def do(folder: Path) -> None:
            with self.meter.counting(learner.model, "training"):
                find_keys(learner, facts, aside).save(folder / "keys.safetensors")

        of = {"facts": facts.fingerprint, "aside": aside.fingerprint, "state": self._state}
        keys = Keys.load(self._once("neurons", of, do) / "keys.safetensors")
        self._notes += doubts_about(keys, facts)
        return add(learner, keys)

    def train(
        self,
        facts: FactSet | None = None,
        *,
        documents: Corpus | None = None,
        stage: str,
        config: TrainConfig,
        stop: Stop | None = None,
        objective: Objective | None = None,
        weigh: Weigh | None = None,
        corrections: Sequence[Correction] = (),
    ) -> TrainResult:
        """Train on the questions of `facts` and the text of `documents`, shuffled, as one stage with this name.

        Args:
            stop: ends the stage, such as `no_longer_improving`.
            objective: a term that is added to the loss, such as `staying_close`.
            weigh: says how often each fact and document occurs in the next epoch, such as `reweighed`.
            corrections: what is done to every update behind the optimiser, such as `leaving_alone`.

        Raises:
            InputError: nothing is left to train on; there is `weigh`, and `config` gives the batch in tokens.
        """
        from instil.training import Stage

        none = FactSet(()), Corpus(())
        planned = Stage(stage, config, facts or none[0], documents or none[1])
        return self._train(planned, stop, objective, weigh, corrections)

    def follow(self, stages: Sequence[Stage]) -> list[TrainResult]:
        """Train stage after stage. Where there is a budget, each gets what is left in proportion to the tokens that it
        and those after it would read, so that no stage starves because an earlier one was long.

        Raises:
            InputError: a stage has nothing to train on.
        """
        if self.budget.flops is None or len(stages) == 1:
            return [self._train(stage) for stage in stages]
        learner = self._as_learner()
        tokens = [stage.tokens(learner.prompts, learner.context_window) for stage in stages]
        shares = [tokens[number] / sum(tokens[number:]) for number in range(len(stages))]
        return [
            self._train(stage, budget=self.budget.share_of_rest(share, self.meter.total))
            for stage, share in zip(stages, shares, strict=True)
        ]

    def _train(
        self,
        stage: Stage,
        stop: Stop | None = None,
        objective: Objective | None = None,
        weigh: Weigh | None = None,
        corrections: Sequence[Correction] = (),
        budget: Budget | None = None,
    ) -> TrainResult:
        from instil.training import train
        from instil.training.tracking import tracked

        learner = self._as_learner()
        examples = stage.examples(learner.prompts, learner.context_window)
        self._guard([*(fact.question for fact in stage.questions), *(document.text for document in stage.documents)])

        def log(point: Mapping[str, Any]) -> None:
            self._tell(f"{stage.name}: epoch {point['epoch']:.1f}, loss {point['loss']:.3f}", int(point["step"]), None)

        folder = self._next_folder("train")
        with tracked(self._tracking / folder.name, stage.config.report_to):
            result = train(
                learner,
                examples,
                stage.training,
                out=folder,
                stop=stop,
                watch=None if self._watch is None else partial(self._watch, stage.name),
                weigh=weigh,
                objective=objective,
                corrections=corrections,
                meter=self.meter,
                budget=budget or self.budget,
                log=log,
            )
        self._note_stage(stage.name, folder.name, result, len(stage))
        return result

    def start_over(self) -> None:
        """Go back to the model that the lesson was given: the next `train` and `probe` find it, not the last stage's.

        The ledger keeps what was trained before; the next state has the lesson's start as its parent.
        """
        self._learner, self._state = None, self._before

    def leaving_alone(self, known: Known, softness: float) -> Correction:
        """A correction that takes out of every update what would change the layers' outputs on these questions and
        answers, or texts; `softness` as in `instil.training.AwayFromKnown`.

        Raises:
            InputError: nothing known, or a softness that is not above zero.
        """
        from instil.training import AwayFromKnown

        return AwayFromKnown(examples_of(self._start, known), softness=softness)

    def sparing(self, known: Known, softness: float) -> Correction:
        """A correction that moves a weight the less, the more these answers or texts depend on it; `softness` as in
        `instil.training.SparingKnown`.

        Raises:
            InputError: nothing known, or a softness that is not above zero.
        """
        from instil.training import SparingKnown

        return SparingKnown(examples_of(self._start, known), softness=softness, seed=self.seed)

    def staying_close(self, known: Known, weight: float, per_step: int = 8) -> Objective:
        """A term that keeps the answers to known questions, or the words of texts, near those of the model as the stage
        finds it (KL).

        Args:
            known: facts, texts, or a tuple of both.
            weight: of the term.
            per_step: facts and texts that are drawn for each optimiser step.
        """
        from instil.training import KLToStart

        return KLToStart(examples_of(self._start, known), weight=weight, per_step=per_step, seed=self.seed)

    # ------------------------------------------------------- for the loop only

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages trained so far, in order."""
        return tuple(self._stages)

    @property
    def notes(self) -> tuple[str, ...]:
        """What verbs could not do as they were asked to, in words."""
        return tuple(self._notes)

    def taught(self) -> LanguageModel:
        """The model as the method left it, in the precision of training.

        Raises:
            RunFailed: the method trained nothing, or nothing since it started over.
        """
        from instil.model.neurons import folded

        if self._state == self._before:
            raise RunFailed("the method ended without training anything")
        return folded(self._as_learner())

    # ---------------------------------------------------------------- private

    def _next_folder(self, verb: str) -> Path:
        folder = self._folder / f"{self._verbs:03d}-{verb}"
        self._verbs += 1
        return folder

    def _once(self, verb: str, inputs: Mapping[str, Any], do: Callable[[Path], None]) -> Path:
        """Run `do` in a folder of its own; if that was done before, only charge again what it had cost.

        Raises:
            InputError: it was done before with other data.
            RunFailed: what was kept of it is not as it was written.
        """
        folder = self._next_folder(verb)
        done, wanted = folder / "done.json", fingerprint([json.dumps(inputs, sort_keys=True)])
        if done.exists():
            refuse_broken(done, folder)
            finished = read_sealed(done)
            if finished["inputs"] != wanted:
                raise InputError("the unfinished run had other data or settings", file=folder, expected="the same call")
            self.meter.add(finished["cost"])
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        spent = self.meter.to_dict()
        do(folder)
        seal(done, sorted(folder.iterdir()), inputs=wanted, cost=self.meter.since(spent))
        return folder

    def _as_learner(self) -> LanguageModel:
        """The model with fp32 master weights: a copy, since the starting model is needed for controls."""
        import torch

        if self._learner is None:
            self._learner = self._start.at(torch.float32)
        return self._learner

    def _as_examined(self) -> LanguageModel:
        """The model at the precision that it will be saved and examined in."""
        from instil.model.neurons import folded

        if self._learner is None:
            return self._start
        examined = folded(self._learner)
        # Not `.to(dtype)`, which rounds the rotary frequencies as well: the saved file would answer differently.
        return examined if examined.dtype == self._start.dtype else examined.at(self._start.dtype)

    def _development_accuracy(self, sets: int) -> float:
        asked = self._glance(self.development, sets)
        return sum(answer.p_greedy for answer in asked) / len(asked)

    def _glance(self, facts: FactSet, sets: int, **changes: Any) -> list[Asked]:
        """What a short probe inside a stage finds: few exemplar sets, no prior; charged as "deciding", not kept."""
        from instil.probe import ask

        asked_with = {"exemplar_sets": min(sets, self._probe_config.exemplar_sets), "prior": False}
        config = self._probe_config.model_copy(update=asked_with | changes)
        learner = self._as_examined()
        with self.meter.counting(learner.model, "deciding"):
            return list(ask(learner, questions_of(facts), self._exemplars.first(sets), config))

    def _note_stage(self, stage: str, batch: str, result: TrainResult, count: int) -> None:
        self._stages.append(stage)
        self._notes += [f"{stage}: {note}" for note in result.notes]
        parent, self._state = self._state, f"{self._run_id}:{stage}"
        examined = self._as_examined()
        state = {
            "run_id": self._run_id,
            "state_id": self._state,
            "parent_id": parent,
            "label": stage,
            "order": len(self._stages),
            "fingerprint": examined.fingerprint,
            "path": self._keep(stage, len(self._stages), examined),
        }
        self._record("states", [state], f"{self._run_id}/{batch}")
        points = point_rows(self._run_id, stage, count, result)
        self._record("stages", points, f"{self._run_id}/{batch}")
