"""Compiled: the inner loop of MinHash: shingle hashes of a text, then the minimum of every permutation.

    signature[i] = min over shingles of (a_i x + b_i) mod 2^32        (signatures.py)

Eight shingles are permuted for each load and store of a signature position, and the positions are the vector lanes: one
32-bit multiplication, addition and minimum each.
"""

from __future__ import annotations

import numpy as np

from curation.dedup.minhash.shingles import distinct, hash_document, table_size
from curation.kernels import kernel
from curation.word_hashes import mix


@kernel()
def sign(data, offsets, table, unit, ngram, a, b, out, content):  # type: ignore[no-untyped-def]
    """Fills `out` (texts, lanes), preset to all ones, with the signatures of the texts.

    `content` is filled with a hash of each text's set of shingles (0: no shingle), unless it is empty.
    """
    longest = 0
    for k in range(len(offsets) - 1):
        longest = max(longest, offsets[k + 1] - offsets[k])
    scratch = np.empty(longest + 1, np.uint64)
    slots = np.empty(table_size(0), np.uint64)
    lanes = out.shape[1]
    for k in range(len(offsets) - 1):
        n = hash_document(data, offsets[k], offsets[k + 1], table, unit, ngram, scratch)
        if len(content) > 0:
            if table_size(n) > len(slots):
                slots = np.empty(table_size(n), np.uint64)
            n = distinct(scratch, n, slots)
            total = np.uint64(n)
            for j in range(n):
                total += mix(scratch[j])  # a sum does not depend on order; mixed, so that sums of different sets differ
            content[k] = mix(total)
        row = out[k]
        j = 0
        while j + 8 <= n:
            x0 = np.uint32(scratch[j] >> np.uint64(32))
            x1 = np.uint32(scratch[j + 1] >> np.uint64(32))
            x2 = np.uint32(scratch[j + 2] >> np.uint64(32))
            x3 = np.uint32(scratch[j + 3] >> np.uint64(32))
            x4 = np.uint32(scratch[j + 4] >> np.uint64(32))
            x5 = np.uint32(scratch[j + 5] >> np.uint64(32))
            x6 = np.uint32(scratch[j + 6] >> np.uint64(32))
            x7 = np.uint32(scratch[j + 7] >> np.uint64(32))
            for i in range(lanes):
                p, q = a[i], b[i]
                m0 = min(np.uint32(p * x0 + q), np.uint32(p * x1 + q))
                m1 = min(np.uint32(p * x2 + q), np.uint32(p * x3 + q))
                m2 = min(np.uint32(p * x4 + q), np.uint32(p * x5 + q))
                m3 = min(np.uint32(p * x6 + q), np.uint32(p * x7 + q))
                row[i] = min(row[i], min(min(m0, m1), min(m2, m3)))
            j += 8
        while j < n:
            x = np.uint32(scratch[j] >> np.uint64(32))
            for i in range(lanes):
                row[i] = min(row[i], np.uint32(a[i] * x + b[i]))
            j += 1
