"""The licence of each set of the built-in icons, with the copyright line of its own licence file.

`SETS` has for each: where the licence file was read (an npm package and its version, or a path in a
repository), and its copyright line, word for word; None: an Apache-2.0 file without one.
"""

from __future__ import annotations

SETS: dict[str, tuple[str, str | None]] = {
    "akar-icons": ("npm akar-icons 1.9.31", "Copyright (c) 2020 Arturo Wibawa"),
    "ant-design": (
        "npm @ant-design/icons 6.3.4",
        "Copyright (c) 2018-present Ant UED, https://xtech.antfin.com/",
    ),
    "at-icons": ("github.com/Voxybuns/at-icons, LICENSE", "Copyright (c) 2026 Voxybuns"),
    "bi": ("npm bootstrap-icons 1.13.2", "Copyright (c) 2019-2024 The Bootstrap Authors"),
    "boxicons": ("github.com/box-icons/boxicons-core, LICENSE", "Copyright (c) 2026 Boxicons"),
    "bx": ("npm boxicons 2.1.4", "Copyright (c) 2015-2021 Aniket Suvarna"),
    "bxs": ("npm boxicons 2.1.4", "Copyright (c) 2015-2021 Aniket Suvarna"),
    "bytesize": ("npm bytesize-icons 1.4.0", "Copyright (c) 2016 Dan Klammer"),
    "carbon": ("npm @carbon/icons 11.89.0", "Copyright 2015 IBM Corp."),
    "charm": ("npm charm-icons 0.17.0", "Copyright (c) 2021 Jay Newey"),
    "clarity": ("github.com/vmware/clarity-assets, LICENSE", "Copyright (c) 2018 VMware, Inc."),
    "cuida": ("npm @sysvale/cuida-icons 1.18.0", None),
    "dinkie-icons": (
        "github.com/atelier-anchor/dinkie-icons, LICENSE",
        "Copyright (c) 2021--2024 atelierAnchor",
    ),
    "duo-icons": ("npm duo-icons 1.1.4", "Copyright (c) 2023 fernandcf"),
    "ep": (
        "npm @element-plus/icons-svg 2.3.2",
        "Copyright (c) 2020-PRESENT Element Plus (https://github.com/element-plus)",
    ),
    "f7": ("npm framework7-icons 5.0.5", "Copyright (c) 2016 Vladimir Kharlampidi"),
    "famicons": (
        "github.com/familyjs/famicons, LICENSE",
        "Copyright (c) 2022-present Family",
    ),
    "fe": ("npm feathericon 1.0.2", "Copyright (c) 2018 Megumi Hano"),
    "flat-color-icons": ("npm flat-color-icons 1.1.0", None),
    "flat-ui": ("github.com/designmodo/Flat-UI, LICENSE", "Copyright (c) 2013-2016 Designmodo"),
    "flowbite": ("npm flowbite-icons 1.5.0", "Copyright (c) 2024 Themesberg"),
    "garden": ("npm @zendeskgarden/svg-icons 8.4.0", None),
    "glyphs": ("github.com/gorango/glyphs, license", "Copyright (c) 2018"),
    "glyphs-poly": ("github.com/gorango/glyphs, license", "Copyright (c) 2018"),
    "gravity-ui": ("npm @gravity-ui/icons 2.23.0", "Copyright (c) 2022 YANDEX LLC"),
    "griddy-icons": (
        "github.com/griddy-icons/griddy-icons, LICENSE",
        "Copyright (c) 2025 Griddy Icons",
    ),
    "grommet-icons": ("npm grommet-icons 4.14.0", None),
    "humbleicons": ("npm humbleicons 1.21.0", "Copyright (c) 2021 Jiří Zralý"),
    "icon-park": ("npm @icon-park/svg 1.4.2", "Copyright 2019-present Bytedance Inc."),
    "icon-park-outline": ("npm @icon-park/svg 1.4.2", "Copyright 2019-present Bytedance Inc."),
    "icon-park-solid": ("npm @icon-park/svg 1.4.2", "Copyright 2019-present Bytedance Inc."),
    "icon-park-twotone": ("npm @icon-park/svg 1.4.2", "Copyright 2019-present Bytedance Inc."),
    "iconoir": ("npm iconoir 7.12.1", "Copyright (c) 2021 Luca Burgio"),
    "ion": ("npm ionicons 8.1.0", "Copyright (c) 2015-present Ionic (http://ionic.io/)"),
    "ix": ("npm @siemens/ix-icons 3.0.0", "Copyright (c) 2022 Siemens AG"),
    "jam": ("npm jam-icons 2.0.0", "Copyright (c) 2017-Present Michael Amprimo"),
    "la": ("npm line-awesome 1.3.0", None),
    "lineicons": ("npm lineicons 1.3.2", "Copyright (c) 2023 Lineicons"),
    "lsicon": ("npm lsicon 0.0.1", "Copyright (c) 2018 Wis Design"),
    "mage": ("github.com/Mage-Icons/mage-icons, License.txt", None),
    "majesticons": ("npm majesticons 2.1.3", "Copyright (c) 2021 Gerrit Halfmann"),
    "mingcute": ("npm mingcute_icon 2.9.72", None),
    "mynaui": ("npm @mynaui/icons 0.4.11", "Copyright (c) Praveen Juge"),
    "nimbus": (
        "github.com/cyberalien/nimbus-icons, LICENSE",
        "Copyright (c) 2020 Linkedstore S.A., 2023 Vjacheslav Trushkin",
    ),
    "oi": ("npm open-iconic 1.1.1, ICON-LICENSE", "Copyright (c) 2014 Waybury"),
    "oui": (
        "github.com/opensearch-project/oui, NOTICE.txt",
        "Copyright 2021 OpenSearch Contributors. This product includes software, including EUI "
        "source code, developed by Elasticsearch (http://www.elastic.co). Copyright 2012-2018 "
        "Elasticsearch B.V.",
    ),
    "ph": ("npm @phosphor-icons/core 2.1.1", "Copyright (c) 2022 Phosphor Icons"),
    "pixelarticons": ("npm pixelarticons 2.4.1", "Copyright (c) 2019 Gerrit Halfmann"),
    "prime": ("npm primeicons 7.0.0", "Copyright (c) 2018-2021 PrimeTek"),
    "qlementine-icons": (
        "github.com/oclero/qlementine-icons, LICENSE",
        "Copyright (c) 2023 Olivier Cléro",
    ),
    "raphael": ("npm raphael 2.3.0", "Copyright (c) 2008-2010 Dmitry Baranovskiy"),
    "ri": ("npm remixicon 4.8.0", None),
    "rivet-icons": ("npm rivet-icons 2.0.0", "Copyright (c) 2018, Indiana University"),
    "simple-line-icons": (
        "npm simple-line-icons 2.5.5",
        "Copyright (c) 2016 Sabbir Ahmed & All Contributors",
    ),
    "stash": ("github.com/stash-ui/icons, LICENSE", "Copyright (c) 2022 Pingback LLC"),
    "system-uicons": ("github.com/CoreyGinnivan/system-uicons, LICENSE", None),
    "tdesign": ("npm tdesign-icons-svg 0.4.0", "Copyright (c) 2021-present TDesign"),
    "teenyicons": ("npm teenyicons 0.4.1", "Copyright (c) 2020, Anja van Staden"),
    "topcoat": (
        "npm topcoat-icons 0.2.0",
        "Copyright (C) 2012 Adobe Systems Incorporated. All rights reserved.",
    ),
    "uiw": ("npm @uiw/icons 2.6.10", "Copyright (c) 2019 uiw"),
    "vadivam": ("github.com/praveenjuge/vadivam, LICENSE", "Copyright (c) Praveen Juge"),
    "vaadin": ("npm @vaadin/icons 25.3.0", "Copyright 2014-2021 Vaadin Ltd."),
}
OWN_TEXT = {"flat-color-icons", "la"}
"""Sets of Icons8, whose licence file says: either MIT or the Good Boy License, given in full"""
