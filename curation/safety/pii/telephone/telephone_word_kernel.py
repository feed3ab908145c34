"""Kernel that finds a word for "telephone" before a number, in scripts other than Latin.

Bare digits ("13812345678") are mostly keys and sizes, so number_context.py leaves them out unless such a word is before
them. In Chinese, Japanese and Thai a word counts at the end of a run of letters: nothing separates it from others.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from curation.kernels import BYTES, kernel

_WORDS = """电话 電話 手机 手機 座机 传真 傳真 热线 熱線 携帯 ファックス 전화 전화번호 팩스 휴대폰 휴대전화
    телефон телефона тел моб факс телефакс هاتف الهاتف جوال موبايل فاكس تلفن موبایل טלפון טל נייד פקס
    फ़ोन फोन मोबाइल दूरभाष โทร โทรศัพท์ มือถือ แฟกซ์
    τηλέφωνο τηλ κινητό φαξ"""
_LONGEST = 24  # bytes


def _hash(word: str) -> int:
    h = 0
    for c in reversed(word.encode()):
        h = (h * 131 + c) % (1 << 40)
    return h


_HASHES = np.array(sorted(_hash(word) for word in _WORDS.split()), np.int64)


@kernel(nb.boolean(BYTES, nb.int64, nb.int64))
def follows_telephone_word(data, first, at):  # type: ignore[no-untyped-def]
    """Whether one of the words ends before `at`; blanks, dots, brackets and colons (any width) may be between."""
    i = at
    while i > first and at - i < 8:
        c = data[i - 1]
        if c == 32 or c == 9 or c == 46 or c == 58 or c == 40 or c == 43:
            i -= 1
        elif i - 2 > first and data[i - 3] == 0xEF and data[i - 2] == 0xBC and (c == 0x9A or c == 0x88):  # ： and （
            i -= 3
        else:
            break
    h = np.int64(0)
    start = i
    while start > first and i - start < _LONGEST and data[start - 1] >= 0x80:
        start -= 1
        h = (h * 131 + np.int64(data[start])) % (1 << 40)
        whole = start == first or data[start - 1] < 0x80  # of two bytes are letters of scripts with spaces: хотел
        if data[start] >= 0xE0 or (data[start] >= 0xC0 and whole):  # the first byte of a character
            for k in range(len(_HASHES)):
                if _HASHES[k] == h:
                    return True
    return False
