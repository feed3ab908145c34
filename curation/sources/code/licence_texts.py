"""Recognises the licence of a text: of a LICENSE file, or of the notice at the head of a source file.

Each licence is known by phrases that its text or its usual notice has, in words alone: lower case, no punctuation, no
line breaks, no comment signs. Of several licences in a text the one that begins first is the text's own; those that
follow are of files that it came with. Identifiers are SPDX's (https://spdx.org/licenses/). A text of GNU's licences
does not say whether later versions may be used, which only notices do; it is given as `-only`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

MAX_TEXT = 1 << 20  # characters of a licence file that are looked at
MAX_NOTICE = 1 << 13  # characters at the head of a source file that may have its notice
_WORDS = re.compile(r"[^a-z0-9]+")
_LICENCE_FILE = re.compile(
    r"(?:un)?licen[sc]es?(?:[._-].*)?$|copying(?:[._-].*)?$|(?:mit|bsd|apache|gpl|lgpl|mpl)[._-]?licen[sc]e(?:[._-].*)?$"
    r"|[\w.]*[._-]licen[sc]e(?:\.(?:txt|md|rst))?$|copyright(?:\.(?:txt|md|rst))?$",
    re.I,
)
_OF_A_FOLDER = re.compile(
    r"(?:un)?(?:licen[sc]es?|copying)(?:[._-][\w.-]*)?$|(?:mit|bsd|apache|gpl|lgpl|mpl)[._-]?licen[sc]e(?:\.\w+)?$",
    re.I,
)
_SOURCE_SUFFIX = re.compile(
    r"\.(?:py|js|ts|c|h|cc|cpp|go|rs|java|rb|php|sh|html?|json|ya?ml|xml|toml|css|svg|png|ico)$", re.I
)
# A phrase that begins a licence -> its identifier, or a function of what follows.
_MIT = (
    "permission is hereby granted free of charge to any person obtaining a copy of this software and associated "
    "documentation files"
)
_BSD = "redistribution and use in source and binary forms with or without modification are permitted"
_ISC = re.compile(
    r"permission to use copy modify (?:and or|and) distribute this software for any purpose with or without fee is "
    r"hereby granted"
)
_HPND = re.compile(
    r"permission to use copy modify (?:and )?distribute (?:and sell )?this software and (?:its|its associated) "
    r"documentation for any purpose (?:and )?(?:with or )?without fee"
)
_ZLIB = "the origin of this software must not be misrepresented"
_APACHE = "apache license version 2 0"
_GNU = re.compile(
    r"gnu (affero general|lesser general|library general|general) public license "
    r"(?:as published by the free software foundation )?"
    r"(?:either |only )?(?:gpl |lgpl |agpl |gplv\d |lgplv\d |agplv\d )?(?:v|version )(\d(?: [01])?)\b"
)
_SAID_SO = re.compile(
    r"either version \d(?: \d)?(?: of the license)? or (?:at your option )?any later version"
    r"|or at your option any later version"
)
_GNU_NAMES = {"affero general": "AGPL", "lesser general": "LGPL", "library general": "LGPL", "general": "GPL"}
_PLAIN = re.compile(r"(?:un)?(?:licen[sc]es?|copying)(?:\.(?:txt|md|rst|html))?", re.I)
_CHOICE = "Apache-2.0 OR BSD-3-Clause"  # unless the files that it names are beside it
# Licences that one phrase tells.
_PHRASES: tuple[tuple[str, str], ...] = (
    ("terms and conditions for use reproduction and distribution 1 definitions license shall mean", "Apache-2.0"),
    ("mozilla public license version 2 0", "MPL-2.0"),
    ("mozilla public license v 2 0", "MPL-2.0"),
    ("mozilla public license version 1 1", "MPL-1.1"),
    ("eclipse public license version 2 0", "EPL-2.0"),
    ("eclipse public license v 2 0", "EPL-2.0"),
    ("eclipse public license v2 0", "EPL-2.0"),
    ("eclipse public license version 1 0", "EPL-1.0"),
    ("eclipse public license v 1 0", "EPL-1.0"),
    ("eclipse public license v1 0", "EPL-1.0"),
    ("common development and distribution license cddl version 1 0", "CDDL-1.0"),
    ("common development and distribution license version 1 0", "CDDL-1.0"),
    ("common development and distribution license cddl version 1 1", "CDDL-1.1"),
    ("european union public licence v 1 2", "EUPL-1.2"),
    ("boost software license version 1 0", "BSL-1.0"),
    ("this is free and unencumbered software released into the public domain", "Unlicense"),
    ("cc0 1 0 universal", "CC0-1.0"),
    ("creative commons attribution sharealike 4 0 international", "CC-BY-SA-4.0"),
    ("creative commons attribution share alike 4 0 international", "CC-BY-SA-4.0"),
    ("creative commons attribution noncommercial 4 0 international", "CC-BY-NC-4.0"),
    ("creative commons attribution 4 0 international", "CC-BY-4.0"),
    ("do what the fuck you want to public license", "WTFPL"),
    ("python software foundation license version 2", "PSF-2.0"),
    ("psf license agreement for python", "PSF-2.0"),
    ("university of illinois ncsa open source license", "NCSA"),
    ("sil open font license version 1 1", "OFL-1.1"),
    ("the artistic license 2 0", "Artistic-2.0"),
    ("artistic license version 2 0", "Artistic-2.0"),
    ("the clarified artistic license", "ClArtistic"),
    ("the artistic license preamble", "Artistic-1.0"),
    ("microsoft public license ms pl", "MS-PL"),
    ("zope public license zpl version 2 1", "ZPL-2.1"),
    ("academic free license afl v 3 0", "AFL-3.0"),
    ("academic free license version 3 0", "AFL-3.0"),
    ("blue oak model license", "BlueOak-1.0.0"),
    ("the universal permissive license upl version 1 0", "UPL-1.0"),
    ("mulan permissive software license version 2", "MulanPSL-2.0"),
    ("mulan psl v2", "MulanPSL-2.0"),
    ("unicode license v3", "Unicode-3.0"),
    ("unicode inc license agreement data files and software", "Unicode-DFS-2016"),
    ("the cnri open source license agreement", "CNRI-Python"),
    ("cnri open source license", "CNRI-Python"),
    ("cnri license agreement", "CNRI-Python"),
    ("elastic license 2 0", "Elastic-2.0"),
    ("server side public license", "SSPL-1.0"),
    ("business source license 1 1", "BUSL-1.1"),
    ("the openssl project for use in the openssl toolkit", "OpenSSL"),
    ("the beer ware license", "Beerware"),
    (
        "permission to use copy modify and distribute this software and its documentation for any purpose without fee "
        "and without a written agreement",
        "PostgreSQL",
    ),
)  # fmt: skip
# What notices say beside the full texts.
_UNDER = r"(?:licensed|released|distributed|available) under (?:the )?(?:terms of (?:the )?)?(?:an? )?"
_NOTICES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(_UNDER + r"apache(?: license)? (?:version )?2(?: 0)?\b"), "Apache-2.0"),
    (re.compile(_UNDER + r"mit(?: style)? licen[sc]e"), "MIT"),
    (re.compile(r"\blicen[sc]e (?:the )?mit(?: license)?\b"), "MIT"),
    (re.compile(_UNDER + r"(?:modified|new|revised|3 clause) bsd licen[sc]e"), "BSD-3-Clause"),
    (re.compile(_UNDER + r"(?:simplified|2 clause|freebsd) bsd licen[sc]e"), "BSD-2-Clause"),
    (re.compile(r"(?:licensed|released) (?:to psf )?under (?:a contributor agreement|the psf)"), "PSF-2.0"),
    (re.compile(r"subject to the terms of the mozilla public license v(?:ersion)? ?2 0"), "MPL-2.0"),
)  # fmt: skip


def is_licence_file(path: str) -> bool:
    """Whether a file is a licence by its name: LICENSE, COPYING.LESSER, MIT-LICENSE.txt."""
    name = posixpath.basename(path)
    return _LICENCE_FILE.match(name) is not None and not _SOURCE_SUFFIX.search(name)


def is_licence_of_folder(path: str) -> bool:
    """Whether a licence file is for all of its folder, which `dragon4_LICENSE.txt` or COPYRIGHT is not."""
    return is_licence_file(path) and _OF_A_FOLDER.match(posixpath.basename(path)) is not None


def recognize_licence(text: str) -> str:
    """The SPDX identifier of a licence file's text; empty for one that is not known."""
    words = _in_words(text[:MAX_TEXT])
    if "software is made available under the terms of either of the licenses" in words[:2000]:
        named = [name for name in ("apache", "bsd") if name in words[:2000]]
        if len(named) == 2:  # the custom of Python's packaging and cryptography: names of files beside this one
            return _CHOICE
    return _first(_begins(words))


def recognize_notice(text: str) -> str:
    """The licence that the head of a source file says it is under; empty if it does not say."""
    words = _in_words(text[:MAX_NOTICE])
    found = _begins(words)
    for pattern, licence in _NOTICES:
        if match := pattern.search(words):
            found.setdefault(match.start(), licence)
    return _first(found)


def licence_of_folder(found: Mapping[str, str]) -> str:
    """The licence of a folder from its licence files (name -> what was recognised, or empty): that of a plain LICENSE,
    else a choice where each name says that it is one licence of several (LICENSE-MIT, LICENSE-APACHE)."""
    plain = sorted((name for name in found if _PLAIN.fullmatch(name)), key=lambda name: (not found[name], name))
    if lesser := [name for name in found if "lesser" in name.lower() and found[name]]:
        return found[lesser[0]]  # COPYING.LESSER says what it adds to the GPL in COPYING
    others = sorted({licence for name, licence in found.items() if name not in plain and licence})
    if plain and found[plain[0]] != "":
        return " OR ".join(others) or found[plain[0]] if found[plain[0]] == _CHOICE else found[plain[0]]
    if plain and not others:
        return ""
    return " OR ".join(others)


def _in_words(text: str) -> str:
    return _WORDS.sub(" ", text.lower().replace("’", "").replace("(c)", " "))


def _first(found: Mapping[int, str]) -> str:
    return found[min(found)] if found else ""


def _begins(words: str) -> dict[int, str]:
    """Where the first text or notice of each licence begins."""
    found: dict[int, str] = {}
    if (at := words.find(_MIT)) >= 0:
        found[at] = _mit(words, at)
    if (at := words.find(_BSD)) >= 0:
        found[at] = _bsd(words[at : at + 4000])
    if match := _ISC.search(words):
        following = words[match.end() : match.end() + 60]
        found[match.start()] = "ISC" if "provided that" in following else "0BSD"
    if match := _HPND.search(words):
        asks = "by obtaining using and or copying this software" in words[max(0, match.start() - 300) : match.start()]
        found.setdefault(match.start(), "MIT-CMU" if asks else "HPND")
    if (at := words.find(_ZLIB)) >= 0:
        begin = words.rfind("this software is provided as is", 0, at)
        found[begin if begin >= 0 else at] = "Zlib"
    if (at := words.find(_APACHE)) >= 0:
        exception = (
            "llvm exceptions to the apache 2 0 license" in words
            or "apache license version 2 0 with llvm exceptions" in words
        )
        found[at] = "Apache-2.0 WITH LLVM-exception" if exception else "Apache-2.0"
    if match := _GNU.search(words):
        found[match.start()] = _gnu(words, match)
    for phrase, licence in _PHRASES:
        if (at := words.find(phrase)) >= 0:
            before = found.get(at, "")
            if before not in ("HPND", "MIT-CMU") or licence == "PostgreSQL":
                found[at] = licence
    return found


def _mit(words: str, at: int) -> str:
    text = words[at : at + 1600]
    if "permission notice" not in text:
        return "MIT-0"
    if "except as contained in this notice the name" in text:
        return "X11"
    if "neither the names of" in text and "endorse or promote products derived from this software" in text:
        return "NCSA"
    return "MIT"


def _bsd(text: str) -> str:
    text = text[: end if (end := text.find(_BSD, 10)) > 0 else len(text)]  # up to another licence of the kind
    if "all advertising materials mentioning features" in text:
        return "BSD-4-Clause"
    if "endorse or promote" in text:
        return "BSD-3-Clause"
    return "BSD-2-Clause" if "in binary form" in text or "in bytecode form" in text else "BSD-1-Clause"


def _gnu(words: str, match: re.Match[str]) -> str:
    version = match[2].replace(" ", ".")
    version = version if "." in version else f"{version}.0"
    later = _SAID_SO.search(words[max(0, match.start() - 300) : match.end() + 300])
    # the text of a licence has "or any later version" too, far from its title: in the notice to be copied
    return f"{_GNU_NAMES[match[1]]}-{version}-{'or-later' if later else 'only'}"
