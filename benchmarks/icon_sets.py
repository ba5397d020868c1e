"""Where the pictures of the built-in set `icons` and of the base's pre-training come from.

One pinned package, `@iconify/json`; of it the sets under MIT, Apache-2.0, ISC, CC0, BSD or the
Unlicense that are no logos, flags, brands or emoji. A family is a designer: sets by one hand, or
derived from one another, or with near copies of one another (Keyline of Lucide), are one family.
Each family is on one side: pre-training of the base, or the laboratory, there with one split for
all its kinds.
"""

from __future__ import annotations

ICONIFY = ("2.2.535", "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91")
"""Version and sha256 of the npm package `@iconify/json`"""
PERMISSIVE = {"MIT", "Apache-2.0", "ISC", "CC0-1.0", "BSD-3-Clause", "BSD-2-Clause", "Unlicense"}

# Permissive sets that are not used at all, by reason.
LEFT_OUT = {
    "logos, brands and marks": [
        "bxl",
        "catppuccin",
        "cib",
        "cryptocurrency",
        "cryptocurrency-color",
        "devicon",
        "devicon-plain",
        "file-icons",
        "gcp",
        "k8s",
        "logos",
        "material-icon-theme",
        "nonicons",
        "simple-icons",
        "skill-icons",
        "thesvg",
        "thesvg-color",
        "token",
        "token-branded",
        "unjs",
        "vscode-icons",
    ],
    "flags": ["cif", "circle-flags", "flag", "flagpack"],
    "emoji, which are a data set of their own": [
        "fluent-emoji",
        "fluent-emoji-flat",
        "fluent-emoji-high-contrast",
        "fxemoji",
        "noto",
        "noto-v1",
    ],
    "animations": ["svg-spinners"],
    "the same as mi": ["mono-icons"],
    "washing symbols": ["ginetex"],
    # Iconify says MIT or Apache-2.0; the licence files of the sources say otherwise (Unicons: the
    # IconScout Simple License; css.gg 2.1.4: no derivative works) or have no copyright line.
    "no permissive licence with a copyright line at the source": [
        "bitcoin-icons",
        "foundation",
        "gg",
        "icons8",
        "il",
        "marketeq",
        "uil",
        "uim",
        "uis",
        "uit",
        "wpf",
    ],
    # Three quarters of Solar's icons (CC-BY-4.0) are in Reicon, pixel correlation above 0.95;
    # Fontisto has pictures of Font Awesome 4 (OFL-1.1).
    "copies of a set under another licence": ["fontisto", "reicon"],
}

# family: its sets. What is not here is a family of its own, by the name of the set.
FAMILIES = {
    "material": ["ic", "line-md", "material-symbols", "material-symbols-light", "mdi", "memory"],
    "microsoft": ["fluent", "fluent-color", "fluent-mdl2"],
    "feather": ["feather", "keyline-icons", "lucide", "lucide-lab", "meteor-icons", "tabler"],
    "heroicons": [
        "heroicons",
        "heroicons-outline",
        "heroicons-solid",
        "sidekickicons",
        "zondicons",
    ],
    "boxicons": ["boxicons", "bx", "bxs"],
    "glyphs": ["glyphs", "glyphs-poly"],
    "icon-park": ["icon-park", "icon-park-outline", "icon-park-solid", "icon-park-twotone"],
    "icons8": ["flat-color-icons", "la"],
    "halfmann": ["majesticons", "pixelarticons"],
    "ionicons": ["famicons", "ion"],
    "maps": ["geo", "maki", "osmic", "pinhead", "temaki"],
    "praveenjuge": ["mynaui", "vadivam"],
}
PIXEL = ["at-icons", "dinkie-icons", "memory", "pixelarticons"]


def family(set_name: str) -> str:
    """The designer of a set."""
    return next((name for name, sets in FAMILIES.items() if set_name in sets), set_name)


# split: families of the laboratory, for all their kinds. Every other family is for pre-training.
LABORATORY = {
    "train": [
        "akar-icons",
        "carbon",
        "charm",
        "dinkie-icons",
        "ep",
        "glyphs",
        "gravity-ui",
        "griddy-icons",
        "grommet-icons",
        "humbleicons",
        "iconoir",
        "icons8",
        "lineicons",
        "praveenjuge",
        "prime",
        "qlementine-icons",
        "simple-line-icons",
        "stash",
        "system-uicons",
    ],
    "validation": [
        "at-icons",
        "bytesize",
        "cuida",
        "duo-icons",
        "fe",
        "flat-ui",
        "garden",
        "ionicons",
        "lsicon",
        "nimbus",  # drawn at Linkedstore; line-md's author, in its copyright line, keeps it
        "oui",
        "rivet-icons",
        "topcoat",
        "uiw",
    ],
    "test": [
        "ant-design",
        "bi",
        "boxicons",
        "clarity",
        "f7",
        "flowbite",
        "halfmann",
        "icon-park",
        "ix",
        "jam",
        "mage",
        "mingcute",
        "oi",
        "ph",
        "raphael",
        "ri",
        "tdesign",
        "teenyicons",
        "vaadin",
    ],
}


def side(family_name: str) -> str:
    """`train`, `validation` or `test` of the laboratory, or `pre-training`."""
    return next((split for split, f in LABORATORY.items() if family_name in f), "pre-training")
