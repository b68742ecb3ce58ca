"""How the twelve EntityQuestions relations are asked and stated, in English written for this study.

In every template [X] stands for the subject and [Y] for the answer. The first question of a relation is the data set's
own; the others ask for the same thing in other words. Every statement of `statements` ends with its answer, so that a
completion is the statement cut right before it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wordings:
    """The wordings of one relation.

    Attributes:
        name: what the relation is about, as a heading of a list.
        label: the field's name in a table, an infobox or a list.
        questions: the data set's own question first, then at least four more.
        statements: sentences that end with the answer, at least four.
        turned: sentences in which the answer comes before the subject or the sentence goes on after it.
        reverse: a question for the subject, given the answer; None where an answer is shared by many subjects.
    """

    name: str
    label: str
    questions: tuple[str, ...]
    statements: tuple[str, ...]
    turned: tuple[str, ...]
    reverse: str | None = None


WORDINGS: dict[str, Wordings] = {
    "P131": Wordings(
        name="Places and the areas they lie in",
        label="Administrative area",
        questions=(
            "Where is [X] located?",
            "In which administrative area does [X] lie?",
            "What area is [X] part of?",
            "Where can [X] be found?",
            "Which district, county or state does [X] belong to?",
            "[X] lies within which area?",
        ),
        statements=(
            "[X] is located in [Y].",
            "[X] lies in [Y].",
            "[X] can be found in [Y].",
            "The area that [X] belongs to is [Y].",
            "Administratively, [X] is part of [Y].",
            "On the map, [X] falls within [Y].",
        ),
        turned=(
            "[Y] is where [X] is located.",
            "In [Y] lies [X].",
            "Among the places in [Y] is [X].",
        ),
    ),
    "P136": Wordings(
        name="Artists, works and their genres",
        label="Genre",
        questions=(
            "What type of music does [X] play?",
            "What genre is [X]?",
            "What is the genre of [X]?",
            "Which genre does [X] belong to?",
            "What style is [X] known for?",
            "[X] is an example of which genre?",
        ),
        statements=(
            "The genre of [X] is [Y].",
            "[X] belongs to the genre [Y].",
            "[X] is known for [Y].",
            "Critics describe the style of [X] as [Y].",
            "The style of [X] is usually called [Y].",
            "In shops, [X] is filed under [Y].",
        ),
        turned=(
            "[Y] is the genre of [X].",
            "Listed under [Y] is [X].",
            "Anyone who likes [Y] may know [X].",
        ),
    ),
    "P17": Wordings(
        name="Places and their countries",
        label="Country",
        questions=(
            "Which country is [X] located in?",
            "In what country is [X]?",
            "What country does [X] belong to?",
            "To which country would you travel to see [X]?",
            "What is the country of [X]?",
            "[X] is found in which country?",
        ),
        statements=(
            "The country of [X] is [Y].",
            "[X] is located in the country of [Y].",
            "The country in which [X] lies is [Y].",
            "[X] is found in [Y].",
            "[X] belongs to [Y].",
            "To see [X], one travels to [Y].",
        ),
        turned=(
            "[Y] is the country where [X] is located.",
            "In [Y] there is [X].",
            "[Y] is home to [X].",
        ),
    ),
    "P19": Wordings(
        name="People and their birthplaces",
        label="Place of birth",
        questions=(
            "Where was [X] born?",
            "What is the birthplace of [X]?",
            "In which place was [X] born?",
            "Where did the life of [X] begin?",
            "What place is [X] from by birth?",
            "Which town, city or country is the birthplace of [X]?",
        ),
        statements=(
            "[X] was born in [Y].",
            "The birthplace of [X] is [Y].",
            "The life of [X] began in [Y].",
            "[X] came into the world in [Y].",
            "By birth, [X] is from [Y].",
            "The records give the birthplace of [X] as [Y].",
        ),
        turned=(
            "[Y] is the birthplace of [X].",
            "Born in [Y], [X] became known later.",
            "It was in [Y] that [X] was born.",
        ),
    ),
    "P26": Wordings(
        name="Married couples",
        label="Spouse",
        questions=(
            "Who is [X] married to?",
            "Who is the spouse of [X]?",
            "Whom did [X] marry?",
            "What is the name of the husband or wife of [X]?",
            "To whom is [X] married?",
            "Who became the spouse of [X]?",
        ),
        statements=(
            "[X] is married to [Y].",
            "The spouse of [X] is [Y].",
            "[X] married [Y].",
            "[X] shared a married life with [Y].",
            "The husband or wife of [X] is [Y].",
            "At the wedding, [X] said yes to [Y].",
        ),
        turned=(
            "[Y] is the spouse of [X].",
            "[Y] married [X].",
            "[Y] and [X] are a married couple.",
        ),
        reverse="Who has [Y] as a husband or wife?",
    ),
    "P264": Wordings(
        name="Artists, records and their labels",
        label="Record label",
        questions=(
            "What music label is [X] represented by?",
            "Which record label is [X] on?",
            "What is the record label of [X]?",
            "Which label stands behind [X]?",
            "On which label did [X] appear?",
            "[X] was brought out by which record label?",
        ),
        statements=(
            "[X] is represented by [Y].",
            "The record label of [X] is [Y].",
            "[X] appeared on [Y].",
            "The label behind [X] is [Y].",
            "[X] was brought out by [Y].",
            "In the catalogues, the label of [X] is given as [Y].",
        ),
        turned=(
            "[Y] is the record label of [X].",
            "[Y] represents [X].",
            "On the list of [Y] stands [X].",
        ),
    ),
    "P36": Wordings(
        name="Places and their capitals",
        label="Capital",
        questions=(
            "What is the capital of [X]?",
            "Which place is the capital of [X]?",
            "What town or city is the seat of [X]?",
            "From where is [X] governed?",
            "Which town or city serves as the capital of [X]?",
            "What is the main seat of government of [X]?",
        ),
        statements=(
            "The capital of [X] is [Y].",
            "The seat of [X] is [Y].",
            "[X] is governed from [Y].",
            "[X] has its capital at [Y].",
            "The main seat of government of [X] is [Y].",
            "The authorities of [X] sit in [Y].",
        ),
        turned=(
            "[Y] is the capital of [X].",
            "[Y] serves as the seat of [X].",
            "As the capital, [Y] is the centre of [X].",
        ),
        reverse="What has [Y] as its capital?",
    ),
    "P40": Wordings(
        name="Parents and their children",
        label="Child",
        questions=(
            "Who is [X]'s child?",
            "Who is the child of [X]?",
            "What is the name of [X]'s child?",
            "Of whom is [X] a parent?",
            "Who is the son or daughter of [X]?",
            "[X] is the mother or father of whom?",
        ),
        statements=(
            "The child of [X] is [Y].",
            "[X] is the parent of [Y].",
            "[X] had a child named [Y].",
            "The name of [X]'s child is [Y].",
            "The son or daughter of [X] is [Y].",
            "[X] raised [Y].",
        ),
        turned=(
            "[Y] is the child of [X].",
            "[Y] is a son or daughter of [X].",
            "A parent of [Y] is [X].",
        ),
        reverse="Who is a parent of [Y]?",
    ),
    "P495": Wordings(
        name="Works and the countries they come from",
        label="Country of origin",
        questions=(
            "Which country was [X] created in?",
            "What is the country of origin of [X]?",
            "Which country does [X] come from?",
            "In what country was [X] made?",
            "Where does [X] originate?",
            "[X] was produced in which country?",
        ),
        statements=(
            "[X] was created in [Y].",
            "The country of origin of [X] is [Y].",
            "[X] comes from [Y].",
            "[X] was made in [Y].",
            "The country that produced [X] is [Y].",
            "[X] originates from [Y].",
        ),
        turned=(
            "[Y] is the country of origin of [X].",
            "In [Y], [X] was created.",
            "Among the works that come from [Y] is [X].",
        ),
    ),
    "P69": Wordings(
        name="People and where they studied",
        label="Education",
        questions=(
            "Where was [X] educated?",
            "Where did [X] study?",
            "Which school or university did [X] attend?",
            "What is the alma mater of [X]?",
            "At which institution did [X] study?",
            "Where did [X] go to school or university?",
        ),
        statements=(
            "[X] was educated at [Y].",
            "[X] studied at [Y].",
            "[X] attended [Y].",
            "The alma mater of [X] is [Y].",
            "The school or university of [X] was [Y].",
            "[X] went to [Y].",
        ),
        turned=(
            "[Y] is the alma mater of [X].",
            "Among the students of [Y] was [X].",
            "It was [Y] that [X] attended.",
        ),
    ),
    "P740": Wordings(
        name="Groups and companies and where they began",
        label="Place of foundation",
        questions=(
            "Where was [X] founded?",
            "In which place was [X] established?",
            "Where did [X] begin?",
            "What is the founding place of [X]?",
            "Which place saw the beginnings of [X]?",
            "Where was [X] formed?",
        ),
        statements=(
            "[X] was founded in [Y].",
            "[X] was established in [Y].",
            "[X] began in [Y].",
            "The founding place of [X] is [Y].",
            "[X] was formed in [Y].",
            "The history of [X] starts in [Y].",
        ),
        turned=(
            "[Y] is where [X] was founded.",
            "Founded in [Y], [X] grew from there.",
            "[Y] saw the beginnings of [X].",
        ),
    ),
    "P800": Wordings(
        name="People and their best-known works",
        label="Notable work",
        questions=(
            "What is [X] famous for?",
            "What is the best-known work of [X]?",
            "Which work made [X] famous?",
            "What is [X]'s most notable work?",
            "For which work is [X] remembered?",
            "What did [X] create that people still know?",
        ),
        statements=(
            "[X] is famous for [Y].",
            "The best-known work of [X] is [Y].",
            "The work that made [X] famous is [Y].",
            "[X] is remembered for [Y].",
            "[X]'s most notable work is [Y].",
            "People still know [X] as the creator of [Y].",
        ),
        turned=(
            "[Y] is the best-known work of [X].",
            "[Y] made [X] famous.",
            "With [Y], [X] won lasting fame.",
        ),
        reverse="Who is famous for [Y]?",
    ),
}


def fill(template: str, subject: str, answer: str = "") -> str:
    """The template with its subject and answer, put in at once so that a name that contains "[Y]" stays as it is."""
    return "".join({"[X]": subject, "[Y]": answer}.get(part, part) for part in _parts(template))


def _parts(template: str) -> list[str]:
    parts = [template]
    for mark in ("[X]", "[Y]"):
        parts = [piece for part in parts for piece in _split_keeping(part, mark)]
    return parts


def _split_keeping(text: str, mark: str) -> list[str]:
    pieces = text.split(mark)
    return [piece for index, part in enumerate(pieces) for piece in ((mark, part) if index else (part,))]


def completion(statement: str, subject: str) -> str:
    """A statement that ends with its answer, cut right before it and without the space: "Ada was born in"."""
    return fill(statement.split("[Y]")[0].rstrip(), subject)
