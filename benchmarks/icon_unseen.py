"""Concepts that the base never sees: not by name, not by keyword, not by picture.

They are apart from the classes of the laboratory (neither base nor novel), so that retrieval of
classes that a model has never met can be tested. `UNSEEN` has each with the words that keep an icon
or an emoji out of pre-training, wherever they stand in its name or keywords; two words count when
they follow one another. Near copies of their pictures go by correlation
(`icon_pretraining_list.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

UNSEEN: dict[str, str] = {
    "umbrella": "umbrella, parasol",
    "anchor": "anchor",
    "skull": "skull, skeleton, crossbones, death, dead, toxic",
    "ghost": "ghost, phantom",
    "microscope": "microscope, microscopy",
    "telescope": "telescope",
    "binoculars": "binocular, binoculars, lookout",
    "crown": "crown, crowned, king, queen, royal, royalty, prince, princess, tiara, monarch",
    "pizza": "pizza, pizzeria",
    "ice cream": "ice cream, icecream, gelato, soft serve, popsicle, sundae, sorbet, ice lolly",
    "cookie": "cookie, biscuit",
    "cactus": "cactus, cacti",
    "mushroom": "mushroom, fungus, fungi, toadstool",
    "helicopter": "helicopter, chopper",
    "sailboat": "sailboat, sailing, sail, yacht, sailor",
    "castle": "castle, fortress, rook, turret",
    "dice": "dice, die, dices",
    "hammer": "hammer, mallet, mjolnir, handyman",
    "magnet": "magnet, magnetic, magnetism",
    "hourglass": "hourglass, hour glass, sandglass, sand clock, sand timer, sandclock, sandtimer",
    "syringe": "syringe, injection, inject, vaccine, vaccination, vaccines, needle",
    "stethoscope": "stethoscope",
    "tooth": "tooth, teeth, dental, dentist, dentistry, molar",
    "bone": "bone",
    "ambulance": "ambulance",
    "tent": "tent, camping, campsite, campground, camp",
    "candle": "candle, candlestick, candles",
    "balloon": "balloon",
    "guitar": "guitar",
    "butterfly": "butterfly, butterflies, moth",
    "tornado": "tornado, tornadoes, twister, whirlwind",
    "bomb": "bomb, explosive, bombing",
    "dna": "dna, helix, genetic, genetics, gene, genome, genomic, genomics",
    "broom": "broom, sweep, sweeper, sweeping",
    "clothes hanger": "hanger, checkroom, cloakroom",
    "piggy bank": "piggy, piggybank",
    "wheelchair": "wheelchair, wheel chair, disabled person, handicap, handicapped, disability",
    "backpack": "backpack, rucksack, knapsack, schoolbag, school bag, bagpack",
    "carrot": "carrot",
    "scissors": "scissors, scissor, cut, shears",
    "lifebuoy": "lifebuoy, buoy, life ring, lifebelt, life saver, lifesaver, lifering",
    "rainbow": "rainbow",
}


def words_of(concept: str) -> set[str]:
    """The words and pairs of words that name a concept, plurals included."""
    return {w + s for w in UNSEEN[concept].split(", ") for s in ("", "s")}


def shows_unseen(texts: Iterable[str]) -> str | None:
    """The unseen concept that one of the texts names, if one does."""
    for text in texts:
        words = text.lower().replace("-", " ").replace("_", " ").replace(",", " ").split()
        found = {*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))}
        for concept, names in NAMES.items():
            if found & names:
                return concept
    return None


NAMES = {concept: words_of(concept) for concept in UNSEEN}
