"""Which fact plays which part in a lesson: as the file says, as separate files say, and otherwise by subject.

No subject and no question is in two roles. What has no role gets one so: exemplars are reserved first (per relation up
to 16 facts or 10 %, at least 4 or a third), then 10 % of the subjects become development facts and 15 % are held back;
the rest is the target. A role that was given, in the file or as a file of its own, is not drawn again. Where documents
are taught, a fact without a role takes that of its document, and facts that share a document stay together.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from instil.answers import normalise
from instil.errors import InputError
from instil.facts.document_roles import documents_of, with_roles_of_documents
from instil.facts.faults import shown
from instil.facts.together import Together
from instil.facts.types import Corpus, Fact, FactSet, Role

PRECEDENCE = (Role.TARGET, Role.EXEMPLAR, Role.HELD_BACK, Role.DEVELOPMENT, Role.PRACTICE, Role.KNOWN)
"""Who keeps a subject that two roles claim. What is taught comes first; what measures before what is trained along."""

NO_DOCUMENTS = Corpus(())
MOST_EXEMPLARS, FEWEST_EXEMPLARS, EXEMPLAR_SHARE = 16, 4, 0.10


@dataclass(frozen=True)
class RolePlan:
    """The facts of every role.

    Attributes:
        roles: facts by role, every role present, disjoint by subject and by question, each fact with its role set.
        left_out: one line for each fact that no role could take, with the reason.
        warnings: what the plan lacks.
    """

    roles: Mapping[Role, FactSet]
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __getitem__(self, role: Role) -> FactSet:
        return self.roles[role]

    def counts(self) -> dict[str, int]:
        return {role.value: len(facts) for role, facts in self.roles.items()}

    @property
    def facts(self) -> FactSet:
        """All facts with their roles."""
        return FactSet(fact for group in self.roles.values() for fact in group)


def plan_roles(
    facts: FactSet,
    *,
    seed: int,
    given: Mapping[Role, FactSet] | None = None,
    development_share: float = 0.10,
    held_back_share: float = 0.15,
    practice_share: float = 0.0,
    documents: Corpus = NO_DOCUMENTS,
) -> RolePlan:
    """Give every fact one role.

    Args:
        facts: facts with or without roles of their own.
        seed: decides which subjects are drawn.
        given: facts whose role is fixed by where they came from.
        development_share: of the subjects that have no role yet, after exemplars are reserved.
        held_back_share: likewise.
        practice_share: likewise; by default practice facts must be given.
        documents: texts that the lesson teaches.

    Raises:
        InputError: one id stands for different facts.
        ValueError: the shares leave nothing.
    """
    shares = {
        Role.DEVELOPMENT: development_share,
        Role.HELD_BACK: held_back_share,
        Role.PRACTICE: practice_share,
    }
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        raise ValueError("the shares must not be negative and must leave something to be taught")
    claimed: dict[Role, list[Fact]] = {role: list((given or {}).get(role, ())) for role in Role}
    free: list[Fact] = []
    for fact in with_roles_of_documents(facts, documents):
        (free if fact.role is None else claimed[fact.role]).append(fact)
    locality = locality_facts([*free, *claimed[Role.TARGET]]) if not claimed[Role.HELD_BACK] else FactSet(())
    if len(locality):
        shares[Role.HELD_BACK] = 0.0
    ties = documents_of([*free, *(fact for group in claimed.values() for fact in group)], documents)
    groups = _draw(free, claimed, random.Random(seed), shares, ties)
    for role, drawn in groups.items():
        claimed[role] += drawn
    kept, left_out = _disjoint(claimed)
    if len(locality):
        kept[Role.HELD_BACK], more = _locality(locality, kept, seed)
        left_out += more
    roles = {role: FactSet(_unique(kept[role])).assign(role) for role in Role}
    _refuse_shared_ids(roles)
    return RolePlan(roles, tuple(left_out), tuple(_lacks(roles)))


def locality_facts(facts: Iterable[Fact]) -> FactSet:
    """The questions whose answers an edit must not change (CounterFact's and zsRE's locality prompts), each once."""
    found: dict[str, Fact] = {}
    for fact in facts:
        for number, item in enumerate(fact.metadata.get("locality", ())):
            question, answers = item["question"], tuple(item["answers"])
            found.setdefault(normalise(question), Fact(f"{fact.id}:locality-{number}", question, answers))
    return FactSet(found.values())


def exemplar_quota(size: int) -> int:
    """How many of a relation's `size` facts are reserved as exemplars."""
    return min(MOST_EXEMPLARS, max(round(EXEMPLAR_SHARE * size), min(FEWEST_EXEMPLARS, size // 3)))


def _draw(
    free: Sequence[Fact],
    claimed: Mapping[Role, Sequence[Fact]],
    chance: random.Random,
    shares: Mapping[Role, float],
    ties: Mapping[str, Sequence[str]],
) -> dict[Role, list[Fact]]:
    """Roles for the facts that have none, cluster by cluster; a cluster that another role has is left to be taught."""

    def keys(fact: Fact) -> list[str]:
        return [*_keys(fact), *(f"d {document}" for document in ties.get(fact.id, ()))]

    theirs = {key for facts in claimed.values() for fact in facts for key in keys(fact)}
    clusters = _clusters(free, ties)
    open_to_all = [name for name, group in clusters.items() if theirs.isdisjoint(k for f in group for k in keys(f))]
    order = sorted(open_to_all)
    chance.shuffle(order)
    exemplars = set() if claimed[Role.EXEMPLAR] else _reserve(clusters, order)
    rest = [name for name in order if name not in exemplars]
    role_of = dict.fromkeys(exemplars, Role.EXEMPLAR)
    start = 0
    for role, share in shares.items():
        count = 0 if claimed[role] else round(share * len(rest))
        role_of |= dict.fromkeys(rest[start : start + count], role)
        start += count
    drawn: dict[Role, list[Fact]] = defaultdict(list)
    for name, group in clusters.items():
        drawn[role_of.get(name, Role.TARGET)] += group
    return drawn


def _reserve(clusters: Mapping[str, Sequence[Fact]], order: Sequence[str]) -> set[str]:
    """Clusters whose facts fill every relation's quota of exemplars; a large one only where no small one is left."""
    sizes = Counter(fact.relation or "" for group in clusters.values() for fact in group)
    of_relation: dict[str, list[str]] = defaultdict(list)
    for name in order:
        for relation in {fact.relation or "" for fact in clusters[name]}:
            of_relation[relation].append(name)
    reserved: set[str] = set()
    filled: Counter[str] = Counter()
    for relation in sorted(sizes):
        quota = exemplar_quota(sizes[relation])
        candidates = sorted(of_relation[relation], key=lambda name: _oversize(len(clusters[name]), quota))
        for name in candidates:
            if filled[relation] >= quota:
                break
            if name not in reserved and len(reserved) + 1 < len(order):
                reserved.add(name)
                filled.update(fact.relation or "" for fact in clusters[name])
    return reserved


def _oversize(size: int, quota: int) -> int:
    return size if size > quota else 0


def _clusters(facts: Sequence[Fact], ties: Mapping[str, Sequence[str]]) -> dict[str, list[Fact]]:
    """Facts that must stay together: of one subject, asked by the same question, or told by one document."""
    together = Together()
    for fact in facts:
        subject, question = _keys(fact)
        together.tie(question, subject)
        for document in ties.get(fact.id, ()):
            together.tie(f"d {document}", subject)
    groups: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        groups[together.root(_keys(fact)[0])].append(fact)
    return dict(groups)


def _keys(fact: Fact) -> tuple[str, str]:
    """What no two roles may share: the subject (the fact's own id where it has none), and the question."""
    subject = f"i {fact.id}" if fact.subject is None else f"s {normalise(fact.subject)}"
    return subject, f"q {normalise(fact.question)}"


def _disjoint(claimed: Mapping[Role, Sequence[Fact]]) -> tuple[dict[Role, list[Fact]], list[str]]:
    """Every role without the facts whose subject or question a role of higher precedence has."""
    holder: dict[str, Role] = {}
    kept: dict[Role, list[Fact]] = {}
    left_out: list[str] = []
    for role in PRECEDENCE:
        kept[role] = []
        mine: set[str] = set()
        for fact in claimed[role]:
            clash = next((key for key in _keys(fact) if key in holder), None)
            if clash is None:
                kept[role].append(fact)
                mine.update(_keys(fact))
            else:
                what = (
                    f"question {shown(fact.question)}" if clash.startswith("q ") else f"subject {shown(fact.cluster)}"
                )
                left_out.append(f"{fact.id} ({role}): its {what} is also in role {holder[clash]}")
        holder |= dict.fromkeys(mine, role)
    return kept, left_out


def _locality(locality: FactSet, kept: Mapping[Role, Sequence[Fact]], seed: int) -> tuple[list[Fact], list[str]]:
    """At most as many locality questions as facts are taught, none of which another role asks."""
    asked = {_keys(fact)[1] for facts in kept.values() for fact in facts}
    usable = locality.where(lambda fact: _keys(fact)[1] not in asked)
    held_back = usable.sample(len(kept[Role.TARGET]), seed)
    left_out = [
        f"{count} locality questions: {reason}"
        for count, reason in (
            (len(locality) - len(usable), "another role asks the same"),
            (len(usable) - len(held_back), "as many are asked as facts are taught"),
        )
        if count
    ]
    return list(held_back), left_out


def _unique(facts: Iterable[Fact]) -> Iterator[Fact]:
    """Each fact once; the same fact may come from two files.

    Raises:
        InputError: two different facts have one id.
    """
    found: dict[str, Fact] = {}
    for fact in facts:
        first = found.setdefault(fact.id, fact)
        if first is fact:
            yield fact
        elif replace(first, role=None) != replace(fact, role=None):
            raise InputError("an id stands for two facts", field="id", found=shown(fact.id), expected="unique ids")


def _refuse_shared_ids(roles: Mapping[Role, FactSet]) -> None:
    home: dict[str, Role] = {}
    for role, facts in roles.items():
        for fact in facts:
            if home.setdefault(fact.id, role) is not role:
                raise InputError(
                    f"an id stands for two facts, in roles {home[fact.id]} and {role}",
                    field="id",
                    found=shown(fact.id),
                    expected="ids that are unique over all files",
                )


def _lacks(roles: Mapping[Role, FactSet]) -> Iterator[str]:
    consequences = {
        Role.EXEMPLAR: "questions are asked without exemplars of their own",
        Role.DEVELOPMENT: "nothing tells when to stop early",
        Role.HELD_BACK: "what is forgotten cannot be measured",
    }
    for role, consequence in consequences.items():
        if not len(roles[role]):
            yield f"no fact has role {role}: {consequence}"
