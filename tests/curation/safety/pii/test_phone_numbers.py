"""The digit counts by which telephone candidates are skipped hold for phonenumbers' own metadata."""

from __future__ import annotations

import re

KINDS = ("fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost")


KINDS += ("personal_number", "voip", "pager", "uan", "voicemail")


def test_how_few_digits_a_number_has() -> None:
    """What lets candidates of under seven digits be tried as German numbers alone."""
    import phonenumbers
    from phonenumbers.phonenumberutil import COUNTRY_CODE_TO_REGION_CODE
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer

    from curation.safety.pii.phone_numbers import MIN_DIGITS, MIN_DIGITS_DE

    def shortest(region: str) -> int:
        descriptions = [getattr(phonenumbers.PhoneMetadata.metadata_for_region(region), k) for k in KINDS]
        return min(min(d.possible_length) for d in descriptions if d is not None and d.possible_length)

    regions = set(PhoneRecognizer.DEFAULT_SUPPORTED_REGIONS) - {"DE"}
    codes = {phonenumbers.country_code_for_region(r) for r in regions}
    assert min(shortest(r) for c in codes for r in COUNTRY_CODE_TO_REGION_CODE[c]) >= MIN_DIGITS
    abroad = (shortest(r) + len(str(phonenumbers.country_code_for_region(r))) for r in phonenumbers.SUPPORTED_REGIONS)
    assert 2 + min(abroad) >= MIN_DIGITS  # 2: the shortest international prefix
    assert min(map(shortest, phonenumbers.SUPPORTED_REGIONS)) >= MIN_DIGITS_DE


def test_how_many_digits_a_number_has() -> None:
    """What lets candidates of more digits than MAX_DIGITS be left unparsed."""
    import re._parser as patterns

    import phonenumbers
    from phonenumbers import phonenumberutil
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer

    from curation.safety.pii.phone_numbers import MAX_DIGITS

    def width(pattern: str, without: int | None = None) -> int:
        """The most characters that the pattern matches, those of one group not counted."""

        def walk(parsed: object) -> None:
            if not isinstance(parsed, patterns.SubPattern):
                return
            for i, (op, value) in enumerate(parsed.data):
                if op is patterns.SUBPATTERN and value[0] == without:
                    parsed.data[i] = (patterns.MIN_REPEAT, (0, 0, value[3]))
                else:
                    for v in value if isinstance(value, tuple) else ():
                        for w in v if isinstance(v, list) else [v]:
                            walk(w)
            parsed.width = None

        tree = patterns.parse(pattern)
        walk(tree)
        return int(tree.getwidth()[1])

    of = phonenumbers.PhoneMetadata
    everywhere = [of.metadata_for_region(r) for r in phonenumbers.SUPPORTED_REGIONS]
    everywhere += [of.metadata_for_nongeo_region(c) for c in phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS]
    stripped = 0
    for m in everywhere:
        if m.national_prefix_for_parsing:
            kept = [int(g) for g in re.findall(r"\\(\d)", m.national_prefix_transform_rule or "")]
            stripped = max(stripped, width(m.national_prefix_for_parsing, kept[0] if kept else None))
    assert stripped == 7
    abroad = max(
        width(of.metadata_for_region(r).international_prefix) for r in PhoneRecognizer.DEFAULT_SUPPORTED_REGIONS
    )
    assert (
        phonenumberutil._MAX_LENGTH_FOR_NSN + phonenumberutil._MAX_LENGTH_COUNTRY_CODE + abroad + stripped == MAX_DIGITS
    )
