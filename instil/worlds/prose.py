"""General prose about no fact at all: a grammar of everyday sentences, so that general perplexity means something."""

from __future__ import annotations

import random
import re

WORDS: dict[str, tuple[str, ...]] = {
    "person": ("the old woman", "a young man", "the neighbour", "my uncle", "the postman", "a child", "the shopkeeper",
               "her sister", "the fisherman", "a traveller", "the cook", "our guide", "the night guard", "a student"),
    "animal": ("dog", "cat", "horse", "crow", "fox", "goat", "owl", "hen", "hare", "swan", "mule", "toad"),
    "place": ("the market", "the kitchen", "the old mill", "the yard", "the library", "the shore", "the station",
              "the garden", "the attic", "the workshop", "the church square", "the bridge", "the hill", "the cellar"),
    "thing": ("basket", "lamp", "blanket", "letter", "kettle", "coat", "ladder", "bucket", "chair", "map", "rope",
              "spoon", "umbrella", "candle", "boat", "wheel", "box", "bottle"),
    "food": ("bread", "soup", "cheese", "apples", "stew", "honey", "onions", "fish", "rice", "cake", "beans", "plums"),
    "time": ("in the morning", "at noon", "late at night", "after the rain", "before dawn", "on market day",
             "in early spring", "all winter", "last summer", "every evening", "once a week", "when the bell rang"),
    "weather": ("rain", "snow", "fog", "wind", "frost", "hail", "sunshine", "thunder", "mist", "drizzle"),
    "adjective": ("heavy", "small", "bright", "worn", "cold", "narrow", "soft", "tall", "empty", "quiet", "clean",
                  "dusty", "strange", "plain", "warm", "round"),
    "verb": ("carried", "found", "mended", "sold", "lost", "borrowed", "painted", "hid", "washed", "dropped", "lifted",
             "kept", "wrapped", "counted"),
    "move": ("walked", "ran", "hurried", "drifted", "wandered", "limped", "climbed", "turned", "rode", "went back"),
    "feel": ("tired", "glad", "uneasy", "proud", "hungry", "calm", "ashamed", "curious", "restless", "content"),
    "material": ("wood", "iron", "wool", "clay", "glass", "leather", "stone", "linen", "copper", "straw"),
    "colour": ("red", "grey", "green", "blue", "brown", "white", "black", "yellow"),
    "plant": ("oak", "willow", "fern", "rose", "nettle", "pine", "clover", "ivy", "thistle", "birch"),
    "number": ("two", "three", "four", "five", "six", "seven", "ten", "twelve", "twenty", "a hundred"),
    "part": ("the handle", "the lid", "the roof", "the edge", "the bottom", "the left side", "the lock", "the seam"),
    "reason": ("the road was closed", "nobody had asked", "the stove had gone out", "the river was high",
               "there was little light left", "it was cheaper that way", "the others were late", "the door was stuck",
               "the ferry had gone", "work was scarce"),
}  # fmt: skip

SENTENCES = (
    "{person} {verb} the {adjective} {thing} {time}.",
    "{time}, {person} {move} to {place}.",
    "The {weather} lasted for {number} days, and {place} stayed {adjective}.",
    "There was a {adjective} {thing} made of {material} near {place}.",
    "Nobody knew why the {animal} {move} towards {place}.",
    "{person} was {feel} because {reason}.",
    "If the {weather} comes back, the {plant} will suffer.",
    "{person} asked whether the {thing} was still in {place}.",
    "Most people eat {food} with {food} {time}.",
    "A {colour} {animal} slept under the {plant}.",
    "To make the {food}, cut it into {number} pieces and keep it {adjective}.",
    "First {person} {verb} the {thing}; then {person} {verb} the {thing}.",
    "It is easier to clean {material} than {material}.",
    "\"Bring the {thing},\" said {person}, \"before the {weather} starts.\"",
    "Although {reason}, {person} {move} to {place}.",
    "The {plant} grows well in {adjective} ground, but not in {weather}.",
    "{number} of the {animal}s had a {colour} mark.",
    "Do not leave the {thing} in {place} when there is {weather}.",
    "{person} said that {reason}, and {person} believed it.",
    "After a while the {thing} became {adjective} and {part} broke.",
    "Which {thing} is better depends on the {weather} and on the {material}.",
    "{person} and {person} shared the {food} {time}.",
    "The path from {place} to {place} is {adjective} and takes {number} hours.",
    "{person} never felt so {feel} as {time}.",
    "Some say that a {animal} near {place} brings {weather}.",
    "The {thing} cost {number} coins, which was too much for {person}.",
    "Whenever {reason}, {person} {verb} a {thing}.",
    "In {place} hung a picture of a {animal} and a {colour} {plant}.",
    "{person} looked at {part} of the {thing} and grew {feel}.",
    "Long ago {place} was full of {food}, {material} and {adjective} {thing}s.",
    "The trick is to hold {part} while somebody else turns the {thing}.",
    "{weather} in the morning often means {weather} at night.",
    "Take {number} handfuls of {food}, add water, and wait until it is {adjective}.",
    "{person} would rather mend a {thing} than buy one.",
    "We waited {time}, but only a {animal} came.",
    "The {adjective} {animal} {move} past {place} and disappeared.",
)  # fmt: skip

SLOT = re.compile(r"\{(\w+)\}")
PROBLEM = re.compile(r"\b([Aa]) (?=[aeiou])")


def sentence(rng: random.Random) -> str:
    """One sentence of the grammar."""
    text = SLOT.sub(lambda match: rng.choice(WORDS[match[1]]), rng.choice(SENTENCES))
    text = PROBLEM.sub(r"\1n ", text)
    return text[0].upper() + text[1:]


def paragraph(rng: random.Random) -> str:
    """Three to six sentences."""
    return " ".join(sentence(rng) for _ in range(rng.randint(3, 6)))
