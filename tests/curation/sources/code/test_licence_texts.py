"""Licences by their texts and notices, and expressions of them."""

from __future__ import annotations

import pytest

from curation.sources.code.licence_texts import (
    is_licence_file,
    is_licence_of_folder,
    licence_of_folder,
    recognize_licence,
    recognize_notice,
)

MIT = (
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated "
    "documentation files (the “Software”) … The above copyright notice and this permission notice shall be included"
)
BSD = (
    "Redistribution and use in source and binary forms, with or without\n# modification, are permitted provided that: "
)
TEXTS = {
    "MIT": MIT, "X11": f"{MIT} … Except as contained in this notice, the name of the X Consortium shall not",
    "MIT-0": MIT.partition(" …")[0],
    "BSD-2-Clause": f"{BSD} 2. Redistributions in binary form must reproduce",
    "BSD-3-Clause": f"{BSD} in binary form … may be used to endorse or promote products",
    "BSD-4-Clause": f"{BSD} All advertising materials mentioning features … endorse or promote",
    "ISC": "Permission to use, copy, modify, and/or distribute this software for any\npurpose with or without fee "
    "is hereby granted, provided that the above copyright notice",
    "0BSD": "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is "
    "hereby granted. THE SOFTWARE IS PROVIDED",
    "Apache-2.0": "Apache License\n   Version 2.0, January 2004",
    "GPL-3.0-only": "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\nCopyright (C)",
    "LGPL-2.1-only": "GNU LESSER GENERAL PUBLIC LICENSE\nVersion 2.1, February 1999",
    "AGPL-3.0-only": "GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3, 19 November 2007",
    "MPL-2.0": "Mozilla Public License Version 2.0", "Unlicense":
    "This is free and unencumbered software released into the public domain.",
    "Zlib": "This software is provided 'as-is' … 1. The origin of this software must not be misrepresented",
    "BSL-1.0": "Boost Software License - Version 1.0", "": "All rights reserved. Ask the miller.",
}  # fmt: skip
NOTICES = {
    "Apache-2.0": '# Licensed under the Apache License, Version 2.0 (the "License");\n# you may not use this file',
    "GPL-2.0-or-later": "/* under the terms of the GNU General Public License as published by\n * the Free Software "
    "Foundation; either version 2 of the License, or (at\n * your option) any later version. */",
    "MPL-2.0": "// This Source Code Form is subject to the terms of the Mozilla Public\n// License, v. 2.0.",
    "MIT": "# :license: MIT, see LICENSE for more details.",
    "BSD-3-Clause": "# Released under the 3-clause BSD license.", "": "# The MIT campus is in Cambridge.\nx = 1",
}  # fmt: skip


@pytest.mark.parametrize("licence", TEXTS)
def test_texts(licence: str) -> None:
    assert recognize_licence(f"Copyright (c) 2020 A Miller\n\n{TEXTS[licence]}") == licence


@pytest.mark.parametrize("licence", NOTICES)
def test_notices(licence: str) -> None:
    assert recognize_notice(NOTICES[licence]) == licence


def test_the_first_licence_of_a_text_is_its_own() -> None:
    assert recognize_licence(f"{TEXTS['BSD-3-Clause']}\n\nBundled: {MIT}\n{TEXTS['GPL-3.0-only']}") == "BSD-3-Clause"


def test_names_of_files() -> None:
    of_folder = ["LICENSE", "licence.md", "COPYING.LESSER", "LICENSE-MIT", "a/MIT-LICENSE.txt", "UNLICENSE"]
    others = ["dragon4_LICENSE.txt", "COPYRIGHT", "x.js.LICENSE"]
    assert all(is_licence_of_folder(name) for name in of_folder)
    assert all(is_licence_file(name) and not is_licence_of_folder(name) for name in others)
    assert not any(is_licence_file(n) for n in ("license.py", "licensing.md", "src/main.c", "driver_license.json"))


def test_several_files() -> None:
    assert licence_of_folder({"LICENSE-MIT": "MIT", "LICENSE-APACHE": "Apache-2.0"}) == "Apache-2.0 OR MIT"
    assert licence_of_folder({"LICENSE": "MIT", "LICENSE.third-party": "Zlib"}) == "MIT"
    assert licence_of_folder({"COPYING": "GPL-3.0-only", "COPYING.LESSER": "LGPL-3.0-only"}) == "LGPL-3.0-only"
    assert licence_of_folder({"LICENSE": ""}) == ""
    either = recognize_licence(
        "This software is made available under the terms of *either* of the licenses\nfound in LICENSE.APACHE or "
        "LICENSE.BSD."
    )
    files = {"LICENSE": either, "LICENSE.APACHE": "Apache-2.0", "LICENSE.BSD": "BSD-2-Clause"}
    assert licence_of_folder(files) == "Apache-2.0 OR BSD-2-Clause"
