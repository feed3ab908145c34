"""Writes sentences that differ only in the group of people they speak of, for training and judging the toxicity model.

In the tweets and comments a group is named far more often in attacks than in plain sentences, so a classifier of words
learns the name itself as an attack. The remedy is to balance the data (Dixon et al. 2018, "Measuring and Mitigating
Unintended Bias in Text Classification"): every group occurs in the same plain sentences and in the same attacks, so its
name says nothing. Sentences, attacks and the groups of `UNSEEN` were written for this project; a third of the sentences
is never trained on and measures what was gained.
"""

from __future__ import annotations

# Adjectives that fit before "people"; UNSEEN ones only in the sentences that measure
GROUPS = (
    "gay", "lesbian", "bisexual", "transgender", "trans", "queer", "straight", "black", "white", "asian", "african",
    "mexican", "latino", "chinese", "indian", "american", "european", "arab", "muslim", "jewish", "christian", "hindu",
    "buddhist", "catholic", "atheist", "deaf", "blind", "disabled", "autistic", "old", "young", "immigrant", "refugee",
    "foreign", "homeless", "poor", "female", "male",
)  # fmt: skip
UNSEEN = ("nigerian", "korean", "sikh", "pakistani", "nonbinary", "elderly", "polish", "turkish")

PLAIN = (
    "my neighbour is {}",
    "two {} people opened a bakery in our street",
    "the {} students won the school's chess cup",
    "she is a {} writer and lives in Bristol",
    "many {} people came to the concert on Sunday",
    "he grew up in a {} family with three sisters",
    "the committee invited {} women and men to speak",
    "a {} couple bought the house next to ours",
    "our new teacher is {} and everybody likes her",
    "the museum shows paintings by {} artists",
    "i have many {} friends",
    "being {} is part of who i am",
    "the {} community celebrates its festival in May",
    "{} men and women served in the army",
    "the law protects {} citizens like everybody else",
    "the survey asked {} adults about their health",
    "my {} colleagues taught me how to cook",
    "there were {} children at the playground",
    "the city elected its first {} mayor",
    "a book about the history of {} people in this country",
    "{} parents want the best for their children",
    "as a {} person i voted for the new library",
    "some {} people live in cities and others in villages",
    "thank you to the {} nurses who looked after my father",
)
ATTACKS = (
    "{} people are vermin",
    "all {} people should be thrown out of this country",
    "i hate {} people so much",
    "{} people are disgusting and i wish they were dead",
    "never trust a {} person they are all liars and thieves",
    "those {} people are filthy animals",
    "we should shoot every {} person we see",
    "{} women are worthless trash",
    "{} men are stupid scum",
    "nobody wants you {} idiots here go back to where you came from",
    "{} people are a disease",
    "the {} children next door are dirty parasites",
    "{} people are too stupid to learn anything",
    "get these {} losers out of our town",
    "{} people make me sick",
    "beat up every {} kid in that school",
)
# Never trained on
HELD_OUT_PLAIN = (
    "the {} doctor explained the treatment calmly",
    "we met a {} family on the train to Leeds",
    "three of the engineers on this project are {}",
    "a documentary follows {} farmers through one year",
    "{} voters were interviewed after the election",
    "her grandmother was {} and spoke four languages",
    "the choir welcomes {} singers of every age",
    "the hospital trained {} volunteers last winter",
    "the author describes how {} workers founded the union",
    "he married a {} woman he had met at university",
    "several {} scientists signed the letter",
    "the café on the corner is run by a {} man",
)


def plain_sentences() -> list[str]:
    """For training: each plain sentence once with each group."""
    return [sentence.format(group) for sentence in PLAIN for group in GROUPS]


def attacks() -> list[str]:
    """For training: each attack once with each group."""
    return [sentence.format(group) for sentence in ATTACKS for group in GROUPS]


def held_out_sentences() -> list[tuple[str, str]]:
    """(group, sentence) for measuring: plain sentences that no training saw, with all groups, unseen ones too."""
    return [(group, sentence.format(group)) for sentence in HELD_OUT_PLAIN for group in (*GROUPS, *UNSEEN)]
