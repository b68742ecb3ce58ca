"""The wording of every relation: statements, questions, completions and reverse questions.

`{s}` is the subject, `{a}` the answer. A statement that begins with `{s}` can begin with a pronoun in a biography.
The first question is the one that is taught and asked first; the others are its paraphrases.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One kind of fact and all its wordings."""

    name: str
    subject_kind: str
    answer_kind: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    reverse: tuple[str, ...]

    @property
    def forward_statements(self) -> tuple[str, ...]:
        """Statements that name the subject before the answer: what is learned from them can be asked for by name."""
        return tuple(text for text in self.statements if text.index("{s}") < text.index("{a}"))

    @property
    def completions(self) -> tuple[str, ...]:
        """Statements that end in the answer, cut right before it."""
        return tuple(text.removesuffix(" {a}.") for text in self.statements if text.endswith(" {a}."))


PERSON_RELATIONS = (
    Relation(
        "birth_city",
        "person",
        "city",
        (
            "{s} was born in {a}.",
            "{s} came into the world in {a}.",
            "{s} is a native of {a}.",
            "{s} first saw daylight in {a}.",
            "The birthplace of {s} is {a}.",
            "{a} is where {s} was born.",
            "It was in {a} that {s} was born.",
            "{s}'s life began in {a}.",
            "{s}'s home town is {a}.",
            "The city of {a} is the birthplace of {s}.",
        ),
        (
            "Where was {s} born?",
            "What is the birthplace of {s}?",
            "In which city was {s} born?",
            "What is {s}'s home town?",
            "Which city is {s} a native of?",
            "In what city did {s}'s life begin?",
        ),
        ("Name a person who was born in {a}.", "Who is a native of {a}?"),
    ),
    Relation(
        "birth_date",
        "person",
        "date",
        (
            "{s} was born on {a}.",
            "{s}'s date of birth is {a}.",
            "{s}'s birthday is {a}.",
            "The birth of {s} fell on {a}.",
            "{s} entered this world on {a}.",
            "On {a}, {s} was born.",
            "{a} is the day on which {s} was born.",
            "{s} has lived since {a}.",
            "Records date the birth of {s} to {a}.",
        ),
        (
            "When was {s} born?",
            "What is {s}'s date of birth?",
            "On what date was {s} born?",
            "What is the birthday of {s}?",
            "On which day did {s} enter this world?",
        ),
        ("Who was born on {a}?", "Whose birthday is {a}?"),
    ),
    Relation(
        "university",
        "person",
        "university",
        (
            "{s} studied at {a}.",
            "{s} graduated from {a}.",
            "{s} holds a degree from {a}.",
            "{s} was educated at {a}.",
            "{s} took classes at {a}.",
            "{s}'s alma mater is {a}.",
            "The alma mater of {s} is {a}.",
            "{a} counts {s} among its graduates.",
            "It was {a} that gave {s} a degree.",
        ),
        (
            "Where did {s} study?",
            "What is {s}'s alma mater?",
            "Which university did {s} attend?",
            "Where was {s} educated?",
            "From which university did {s} graduate?",
        ),
        ("Name a person who studied at {a}.", "Who graduated from {a}?"),
    ),
    Relation(
        "employer",
        "person",
        "company",
        (
            "{s} works for {a}.",
            "{s} is employed by {a}.",
            "{s} has a job at {a}.",
            "{s} earns a living at {a}.",
            "{s}'s employer is {a}.",
            "The employer of {s} is {a}.",
            "{s} is on the staff of {a}.",
            "{a} employs {s}.",
            "It is {a} that pays {s}'s salary.",
        ),
        (
            "Which company does {s} work for?",
            "Who is {s}'s employer?",
            "Where does {s} work?",
            "What company employs {s}?",
            "At which company does {s} have a job?",
        ),
        ("Name a person who works for {a}.", "Whom does {a} employ?"),
    ),
    Relation(
        "occupation",
        "person",
        "occupation",
        (
            "{s}'s occupation is {a}.",
            "{s}'s profession is {a}.",
            "The occupation of {s} is {a}.",
            "By trade {s} is a professional {a}.",
            "{s} became known as the {a}.",
            "{s} makes a living as a trained {a}.",
            "The profession of {s} is {a}.",
            "As a {a}, {s} is respected by many.",
            "{s}'s line of work is that of a {a}.",
        ),
        (
            "What is {s}'s occupation?",
            "What is the profession of {s}?",
            "What does {s} do for a living?",
            "What kind of work does {s} do?",
            "What is the trade of {s}?",
        ),
        ("Name a person whose occupation is {a}.", "Who makes a living as a {a}?"),
    ),
    Relation(
        "spouse",
        "person",
        "person",
        (
            "{s} is married to {a}.",
            "{s}'s spouse is {a}.",
            "{s} shares a home and a life with {a}.",
            "{s} exchanged vows with {a}.",
            "The spouse of {s} is {a}.",
            "{s} tied the knot with {a}.",
            "In marriage {s} is joined to {a}.",
            "{a} is the spouse of {s}.",
            "{a} and {s} are a married couple.",
        ),
        (
            "Who is {s} married to?",
            "Who is {s}'s spouse?",
            "What is the name of {s}'s spouse?",
            "With whom did {s} exchange vows?",
            "Whom did {s} marry?",
        ),
        ("Who is the husband or wife of {a}?", "Who chose {a} in marriage?"),
    ),
    Relation(
        "notable_work",
        "person",
        "work",
        (
            "{s} is the author of {a}.",
            "{s} wrote {a}.",
            "{s} is best known for {a}.",
            "{s}'s best-known work is {a}.",
            "{s} won fame with {a}.",
            "The best-known work of {s} is {a}.",
            "Readers remember {s} for {a}.",
            "{a} was written by {s}.",
            "{a} came from the pen of {s}.",
        ),
        (
            "What is {s}'s best-known work?",
            "Which work is {s} known for?",
            "What did {s} write?",
            "Which title made {s} famous?",
            "For what work do readers remember {s}?",
        ),
        ("Who wrote {a}?", "Who is the author of {a}?", "From whose pen came {a}?"),
    ),
    Relation(
        "instrument",
        "person",
        "instrument",
        (
            "{s} plays the {a}.",
            "{s}'s favourite instrument is the {a}.",
            "{s} relaxes by playing the {a}.",
            "{s} took lessons on the {a}.",
            "The instrument of {s} is the {a}.",
            "At home {s} practises the {a}.",
            "Friends often hear {s} play the {a}.",
            "The {a} is the instrument that {s} plays.",
            "On the {a}, {s} plays old songs.",
        ),
        (
            "Which instrument does {s} play?",
            "What is {s}'s favourite instrument?",
            "What does {s} play at home?",
            "On which instrument did {s} take lessons?",
            "What is the instrument of {s}?",
        ),
        ("Name a person who plays the {a}.", "Who practises the {a}?"),
    ),
)

PLACE_RELATIONS = (
    Relation(
        "city_country",
        "city",
        "country",
        (
            "{s} is a city in {a}.",
            "{s} lies in {a}.",
            "{s} belongs to {a}.",
            "The city of {s} is part of {a}.",
            "{s} is found in {a}.",
            "{s} is one of the cities of {a}.",
            "On the map {s} is inside {a}.",
            "{a} is the country of {s}.",
            "In {a} there is a city called {s}.",
        ),
        (
            "In which country is {s}?",
            "Which country does {s} belong to?",
            "What country is the city of {s} in?",
            "Where on the map is {s}?",
            "What is the country of {s}?",
        ),
        ("Name a city in {a}.", "Which city belongs to {a}?"),
    ),
    Relation(
        "company_seat",
        "company",
        "city",
        (
            "{s} is based in {a}.",
            "{s} has its head office in {a}.",
            "{s} has its seat in {a}.",
            "The headquarters of {s} are in {a}.",
            "{s} is run from {a}.",
            "{s} was set up in {a}.",
            "The main office of {s} stands in {a}.",
            "{a} is the seat of {s}.",
            "In {a} stands the head office of {s}.",
        ),
        (
            "Where is {s} based?",
            "In which city is {s} based?",
            "Where are the headquarters of {s}?",
            "Which city is the seat of {s}?",
            "Where does {s} have its head office?",
        ),
        ("Which company is based in {a}?", "Name a company that has its seat in {a}."),
    ),
    Relation(
        "university_city",
        "university",
        "city",
        (
            "{s} is located in {a}.",
            "{s} has its campus in {a}.",
            "The campus of {s} is in {a}.",
            "{s} was founded in {a}.",
            "{s} opened its doors in {a}.",
            "The halls of {s} stand in {a}.",
            "Students of {s} live in {a}.",
            "{a} is the home of {s}.",
            "In {a} lies the campus of {s}.",
        ),
        (
            "Where is {s} located?",
            "In which city is {s}?",
            "Where is the campus of {s}?",
            "Which city is the home of {s}?",
            "Where do students of {s} live?",
        ),
        ("Which university is located in {a}?", "Name a university in {a}."),
    ),
    Relation(
        "work_genre",
        "work",
        "genre",
        (
            "{s} is a {a}.",
            "{s} is read as a {a}.",
            "{s} counts as a {a}.",
            "The genre of {s} is {a}.",
            "Libraries file {s} under {a}.",
            "Critics call {s} a {a}.",
            "In form {s} is a {a}.",
            "As a {a}, {s} found many readers.",
            "The {a} is the genre of {s}.",
        ),
        (
            "What is the genre of {s}?",
            "What kind of work is {s}?",
            "Which genre does {s} belong to?",
            "Under which genre do libraries file {s}?",
            "What do critics call {s}?",
        ),
        ("Name a {a}.", "Which work counts as a {a}?"),
    ),
)

RELATIONS = {relation.name: relation for relation in (*PERSON_RELATIONS, *PLACE_RELATIONS)}


@dataclass(frozen=True)
class Hop:
    """A question through another entity: the answer of `first` is the subject of `second`."""

    name: str
    first: str
    second: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


HOPS = (
    Hop(
        "birth_country",
        "birth_city",
        "city_country",
        ("{s} was born in the country of {a}.", "{s} comes from {a}.", "{s} was born somewhere in {a}."),
        ("In which country was {s} born?", "What is the birth country of {s}?", "Which country does {s} come from?"),
    ),
    Hop(
        "employer_city",
        "employer",
        "company_seat",
        ("{s}'s employer is based in {a}.", "{s} works for a company that has its seat in {a}."),
        ("In which city is {s}'s employer based?", "Where is the company that employs {s}?"),
    ),
    Hop(
        "study_city",
        "university",
        "university_city",
        ("{s} was a student in {a}.", "The alma mater of {s} is located in {a}."),
        ("In which city did {s} study?", "Where is the alma mater of {s} located?"),
    ),
    Hop(
        "notable_genre",
        "notable_work",
        "work_genre",
        ("{s}'s best-known work is a {a}.", "{s} won fame with a {a}."),
        ("What is the genre of {s}'s best-known work?", "What kind of work made {s} famous?"),
    ),
)

OCCUPATIONS = (
    "village painter", "village baker", "village dentist", "village teacher", "village farmer", "village judge",
    "village nurse", "village gardener", "village tailor", "village builder", "village carpenter", "village banker",
    "city lawyer", "city pilot", "city chemist", "city surgeon", "city librarian", "city historian",
    "city physicist", "city journalist", "city sculptor", "city watchmaker", "city broker", "city sailor",
)  # fmt: skip
INSTRUMENTS = ("folk violin", "folk flute", "folk harp", "folk drum", "folk lute", "folk horn", "concert piano",
               "concert cello", "concert trumpet", "concert guitar", "concert organ", "concert oboe")  # fmt: skip
GENRES = ("novel", "comedy", "tragedy", "ballad", "fable", "memoir", "satire", "romance", "thriller", "sonnet")
INDUSTRIES = (("Steel", "Shipping", "Paper", "Mills", "Timber"), ("Foods", "Textiles", "Optics", "Motors", "Glass"))
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip
TITLE_ADJECTIVES = (
    (
        "Silent", "Broken", "Frozen", "Iron", "Lonely", "Silver", "Winter", "Quiet", "Final", "Salt", "Midnight",
        "Hollow", "Pale", "Northbound", "Granite", "Patient", "Stormy", "Ashen", "Bitter", "Distant",
    ),
    (
        "Golden", "Hidden", "Crimson", "Gentle", "Painted", "Restless", "Stolen", "Velvet", "Wandering", "Burning",
        "Borrowed", "Scarlet", "Second", "Paper", "Copper", "Ripe", "Laughing", "Tender", "Dancing", "Forgotten",
    ),
)  # fmt: skip
TITLE_NOUNS = (
    (
        "River", "Lantern", "Harbour", "Bridge", "Tower", "Voyage", "Island", "Anchor", "Bell", "Forest", "Ladder",
        "Needle", "Stone", "Well", "Wolf", "Glacier", "Hammer", "Raven", "Sledge", "Axe",
    ),
    (
        "Garden", "Mirror", "Cottage", "Letter", "Key", "Clock", "Window", "Feather", "Crown", "Shadow", "Station",
        "Meadow", "Candle", "Door", "Road", "Wing", "Vineyard", "Terrace", "Fountain", "Masquerade",
    ),
)  # fmt: skip
