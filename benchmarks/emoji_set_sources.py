"""Where the built-in emoji data set comes from: pinned packages, licences, attribution."""

from __future__ import annotations

FLAT = "fluent-emoji-flat"

# style: (version of the npm package @iconify-json/<style>, sha256 of its tarball)
STYLES = {
    "noto": ("1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "noto-v1": ("1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"),
    "twemoji": ("1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    "fluent-emoji": ("1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b"),
    FLAT: ("1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
    "fluent-emoji-high-contrast": (
        "1.2.6",
        "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
    ),
    "emojione": ("1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"),
    "emojione-monotone": (
        "1.2.1",
        "40b90004bafb406b59266155ef9b7e1dd67bf2947fc8db8d07388776f4d0d04e",
    ),
}
EMOJIBASE = ("17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a")

CC_BY = "CC-BY-4.0, https://creativecommons.org/licenses/by/4.0/"
EMOJITWO = (
    "Emoji icons provided free by EmojiOne (version 2, by Ranks.com, "
    "https://www.emojione.com), as kept by Emojitwo and its contributors, "
    "https://github.com/EmojiTwo/emojitwo"
)
NOTO = ("Apache-2.0", "Copyright Google Inc., https://github.com/googlefonts/noto-emoji")
FLUENT = ("MIT", "Copyright (c) Microsoft Corporation, https://github.com/microsoft/fluentui-emoji")
# style: (licence, attribution), from info.json of each package and from the artists' repositories
LICENCES = {
    "noto": NOTO,
    "noto-v1": NOTO,
    "twemoji": (
        CC_BY,
        "Copyright Twitter, Inc and other contributors, https://github.com/jdecked/twemoji",
    ),
    "fluent-emoji": FLUENT,
    FLAT: FLUENT,
    "fluent-emoji-high-contrast": FLUENT,
    "emojione": (CC_BY, EMOJITWO),
    "emojione-monotone": (CC_BY, EMOJITWO),
}
NOTICE = """\
# Notice for the built-in emoji data set

Written by `benchmarks/emoji_set.py`. The pictures and the words are other people's work, under
their licences; `LICENSES.txt` holds the full texts of Apache-2.0, MIT and Unicode-3.0. Nobody named
here endorses this project, and all of it comes without warranty.

**Changes made:** from each set a part of the icons was taken; each was drawn on a white background,
resized to {size} x {size} pixels and stored as WebP (quality {quality}). One-colour sets are drawn
in black. `masks.xz` says which of their pixels are drawn. Nothing else was altered.

## Pictures

{pictures}

`further.zip` has further pictures of noto, twemoji and the three fluent sets, from the same
packages and made in the same way, by `benchmarks/emoji_edits.py`.

## Words (`concepts.json`, `edits.json`)

- npm package `emojibase-data` {emojibase}; licence: MIT; Copyright (c) 2017-2019 Miles Johnson,
  https://github.com/milesj/emojibase. Names, keywords, groups and subgroups were selected from it,
  put in lower case, and the folds were added. What is to be changed of one concept to have another
  (`edits.json`) was made from the names by rules.
- The names, keywords and groups go back to the Unicode emoji data and CLDR; licence: Unicode-3.0;
  Copyright (c) 2004-2025 Unicode, Inc., https://www.unicode.org/license.txt
"""
