# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Reading the auditor's lines: what is taken, what is passed over, and what is no audit."""

import pytest

import audits
from audits import line, phase, said, verdict
from lab.audit import lines


def whole(text: str) -> str | None:
    return lines.whole(lines.parse(text))


def test_a_whole_audit() -> None:
    found = lines.parse(said())
    assert found.trouble is None and lines.whole(found) is None
    assert found.started and found.ended and found.phase == "judging"
    assert [each["rule"] for each in found.of("verdict")] == ["C4", "C7"]


def test_text_for_people_is_passed_over() -> None:
    text = "BdsDxe: loading\r\n" + said().replace(
        '{"type":"end"', 'Devices:\n  "x": {1}\n{ not ours\n{"type":"end"').replace("\n", "\r\n")
    assert whole(text) is None


def test_cursor_movements_in_front_of_a_line() -> None:
    found = lines.parse("\x1b[2J\x1b[01;01HTianoCore" + said())
    assert found.started and lines.whole(found) is None


def test_unknown_types_and_fields_are_passed_over() -> None:
    text = said(verdict("C4").replace('"why"', '"since":{"a":[1]},"why"')).replace(
        audits.DEVICE, audits.DEVICE + line("weather", rain=True))
    found = lines.parse(text)
    assert lines.whole(found) is None
    assert found.first("weather") == {"type": "weather", "rain": True}


def test_huge_lost_counts() -> None:
    found = lines.parse(said(details=audits.DETAILS + line("lost", what="call", count=1 << 63)))
    assert lines.whole(found) is None
    assert [each["count"] for each in found.of("lost")] == [1 << 63]


@pytest.mark.parametrize(("text", "says"), [
    (said().replace('"round":1', '"round":"x"'), "its round is wrong"),
    (said().replace('"image":0,', "", 1), "its image is missing"),
    (said().replace('"us":2000', '"us":"soon"'), "its us is wrong"),
    (said().replace('"us":2000', '"us":2000,,'), "cannot be read"),
    (said().replace('"verdict":"pass"', '"verdict":"maybe"', 1), "no verdict 'maybe'"),
    (said().replace('"end","pass":2', '"end","pass":true'), "its pass is wrong"),
    (said() + '{"type":["end"]}\n', "no type"),
    (said() + '{"type":"en\n', "cannot be read"),
    (said() + '{"a":' * 100000 + "\n", "cannot be read"),
    (said().replace(audits.RETURN, ""), "never succeeded"),
    (said().replace('"success"', '"invalid parameter"'), "never succeeded"),
    (said().replace(verdict("C4"), ""), "counts 2 verdicts 'pass', and 1 arrived"),
    (said() + verdict("C1", "fail"), "not in their order"),
    (said().replace('{"type":"end","pass":2', '{"type":"end","pass":3'), "counts 3 verdicts"),
    (said(""), "judged nothing"),
    (said() + said(), "start and end once"),
    (phase("busy") + said(), "not in their order"),
    (said().replace('"version":1', '"version":2'), "writes handover 2, and this command reads"),
    (said().replace('"handover"', '"else"'), "writes else 1"),
    (audits.BEFORE + line("error", what="no memory"), "the auditor says: no memory"),
    (said() + line("error", what="no memory"), "the auditor says: no memory"),
    ("", "did not start and end once"),
], ids=lambda value: value if len(value) < 80 else "")
def test_no_audit(text: str, says: str) -> None:
    why = whole(text)
    assert why is not None and says in why


def test_what_the_auditor_says_counts_for_more_than_a_cut_line() -> None:
    text = said().replace('"image":0,', "", 1) + line("error", what="no memory")
    assert whole(text) == "the auditor says: no memory"


@pytest.mark.parametrize(("status", "good"), [
    ("success", True), ("0x0", True), (0, True), ("invalid parameter", False),
    ("0x8000000000000002", False), (None, False), ("", False),
])
def test_success(status: object, good: bool) -> None:
    assert lines.succeeded({"type": "phase", "phase": "return", "status": status}) is good
    assert not lines.succeeded({"type": "phase", "phase": "call", "status": status})
