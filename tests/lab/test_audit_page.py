# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The audit's page: all that a report says is in it, nothing that it says becomes markup, and a
real browser shows it whole."""

import json
import math
import os
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import audit_samples as samples
import pytest

from lab.audit import page
from lab.errors import LabError

VOID = {"meta", "br"}
ACTIVE = {"iframe", "object", "embed", "link", "base", "form", "img", "image", "video", "audio",
          "source", "input", "button", "frame", "use", "foreignobject", "animate", "set"}
FETCHING = {"src", "srcset", "action", "formaction", "data", "poster", "background", "ping",
            "xlink:href", "manifest", "srcdoc", "codebase"}


class Reader(HTMLParser):
    """Reads a page and notes whatever a good page does not have."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.count: dict[str, int] = {}
        self.text: list[str] = []
        self.data = ""
        self.style = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        if self._open:
            self.wrong.append(f"never closed: {self._open}")
        if len(self.ids) != len(set(self.ids)):
            self.wrong.append("an id twice")
        self.wrong += [f"leads nowhere: {link}" for link in self.links
                       if not link.startswith("#") or link[1:] not in self.ids]
        if re.search(r"url\(|@import|expression|://", self.style):
            self.wrong.append("the style fetches something")

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in VOID:
            self._open.append(tag)
        if tag in ACTIVE:
            self.wrong.append(f"<{tag}>")
        values = dict(attrs)
        if tag == "script" and values.get("type") != "application/json":
            self.wrong.append("a script")
        if len(values) != len(attrs):
            self.wrong.append(f"an attribute twice in <{tag}>")
        for name, value in attrs:
            if name in FETCHING or name.startswith("on") or \
                    not re.fullmatch(r"[a-z]+[a-z0-9-]*", name):
                self.wrong.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")
            if name == "style" and not re.fullmatch(r"padding-top:\d+px", value or ""):
                self.wrong.append(f"style={value}")
        if tag == "th" and "scope" not in values:
            self.wrong.append("a head cell without a scope")

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.wrong.append(f"</{tag}> closes {self._open[-1:]}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            self.data += data
        elif inside == "style":
            self.style += data
        else:
            self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"a comment: {data}")


def read(report: dict[str, Any]) -> Reader:
    """A report's page, which must be well-formed and hold the report."""
    reader = Reader(page.render(report))
    assert reader.wrong == []
    assert json.loads(reader.data) == report
    return reader


def test_the_reader_can_fail() -> None:
    good = page.render(samples.clean())
    assert Reader(good).wrong == []
    for old, new in (("</main>", ""), ("<main>", "<main><img src='x'>"), ("<main>", "<main id=main>"
                     "<p id=main>"), ("<main>", "<main onclick='x'>"), ("<main>", "<!--"),
                     ("<main>", "<main><a href='http://x'></a>"), ("<main>", "<script></script>"),
                     ("<h1>", "<table><tr><th></th></tr></table><h1>"), ("*{", "a{b:url(x)}*{")):
        assert Reader(good.replace(old, new, 1)).wrong, new


def test_clean() -> None:
    words = read(samples.clean()).words
    assert "✔ Clean: 15 verdicts held, none failed" in words
    assert "✘ fail" not in words and "✘ Violations" not in words
    for fact in ("/usr/share/OVMF/OVMF_CODE.fd", "ovmf 2022.11-6+deb12u2", "EDK II", "5f5f5f",
                 "QEMU 7.2.22", "machine q35", "128 MiB", "04.0 virtio-blk", "2026-08-30",
                 "virtio-blk-pci,drive=d"):
        assert fact in words, fact


def test_every_verdict_and_all_evidence() -> None:
    report = samples.violations()
    reader = read(report)
    words = reader.words
    assert "✘ Violations: 4 of 18 verdicts failed; 2 could not be seen" in words
    for sign, kind in page.SIGNS.items():
        # Each once in the table, once with its reason; as text, not as colour alone.
        assert words.count(kind) == 2 * report["counts"][sign]
    for line in report["verdicts"]:
        assert line["why"] in words
        assert line["rule"] in words
    for title in samples.TITLES:
        assert title in words
    failures = words[words.index("Failures"):words.index("Time line")]
    for said in ("FreePages(0x7e02000, 4) was called from XenBusDxe + 0x1c07 (address 0x7eb1c07)",
                 "outermost first: DxeCore → XenBusDxe", "held responsible: XenBusDxe",
                 "The UEFI specification forbids this", "Rule C2 forbids this",
                 "16 KiB of memory at 0x7e02000 had become free", "memory map says boot",
                 "PCI command 0x0007 (I/O, memory, bus master)", "DRIVER_OK", "queue 0 enabled",
                 "60 bytes of memory at 0x7cd000c", "most likely by 00:05.0 (virtio-net)",
                 "allocated by VirtioNetDxe", "receive buffer of 00:05.0",
                 "2 bytes of memory at 0x7ce9002", "put 3 packet(s) into the machine's memory",
                 "And 39 more like this, the last at 1.393 s"):
        assert said in failures, said
    found = failures[failures.index("expected"):]
    assert found.replace(" ", "").startswith("expected" + "b4" * 16 + "foundb4b4" + "ff" * 6)
    assert "12 lines of type “call” did not fit" in words


def test_each_failing_cell_leads_to_its_failure() -> None:
    report = samples.violations()
    text = page.render(report)
    table, failures = text.split(">Failures</h2>")
    assert re.findall(r'href="#(failure-\d+)"', table) == [f"failure-{at}" for at in range(4)]
    for at, failure in enumerate(line for line in report["verdicts"] if line["verdict"] == "fail"):
        article = failures.split(f'<article id="failure-{at}"')[1].split("</article>")[0]
        assert failure["why"] in Reader(f"<article{article}</article>").words


def test_every_event_is_listed() -> None:
    report = samples.violations()
    reader = read(report)
    assert {f"event-{at}" for at in range(len(report["events"]))} <= set(reader.ids)
    assert f"All {len(report['events'])} events" in reader.words


def test_could_not_audit() -> None:
    words = read(samples.could_not()).words
    assert "? Could not audit: the firmware printed nothing within 180 s" in words
    assert "Clean" not in words and "✔" not in words


@pytest.mark.parametrize(("change", "headline"), [
    ({}, "could not"), ({"result": "clean"}, "nothing was judged"),
    ({"result": "fine"}, "could not"), ({"result": None}, "could not"),
    ({"result": "violations"}, "violations, but"),
    ({"result": "could not audit", "verdicts": samples.clean()["verdicts"]}, "could not"),
    ({"result": "clean", "verdicts": [samples.verdict("device", "x", "C4", "fail")]}, "violations"),
    ({"result": "clean", "verdicts": [samples.verdict("device", "x", "C4", "unseen")]}, "nothing"),
    ({"result": "clean", "verdicts": [samples.verdict("device", "x", "C4", "hm")]}, "nothing"),
])
def test_nothing_is_clean_by_default(change: dict[str, Any], headline: str) -> None:
    style, line = page.headline(page.Story(change))
    assert style != "pass" and headline in line.lower()
    assert "✔ Clean" not in read(change).words


def test_hostile_text_stays_text() -> None:
    report = samples.hostile()
    reader = read(report)
    assert reader.count["script"] == 1
    words = reader.words
    assert "</script><script>alert(1)</script>" in words and "&amp;<!--" in words
    assert "\\u202egnp" in words and "\\u0000" in words and "\\ud800" in words
    text = page.render(report)
    assert text.isprintable() or not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]", text)
    assert text.count("</script") == 1 and "<img" not in text and "<!--" not in text


@pytest.mark.parametrize("value", [
    None, True, -1, 10 ** 400, 1e308, [], {}, [[[]]], {"a": [1]}, "0x", "0x" + "f" * 16,
    "9" * 5000],
    ids=lambda value: f"{value!s:.12}")
def test_any_value_anywhere(value: object) -> None:
    """A report may be wrong in every place, and still there is a page."""
    def spoil(part: Any, at: list[int]) -> Any:
        at[0] -= 1
        if at[0] == 0:
            return value
        if isinstance(part, dict):
            return {key: spoil(inner, at) for key, inner in part.items()}
        return [spoil(inner, at) for inner in part] if isinstance(part, list) else part
    report = samples.violations()
    report["events"] = report["events"][:8] + report["events"][14:30:3] + report["events"][-9:]
    report["shared"], report["images"] = report["shared"][:2], report["images"][-2:]
    places = [10 ** 6]
    spoil(report, places)
    for place in range(2, 10 ** 6 - places[0], 3 if value in ([], "0x") else 17):
        spoilt = spoil(report, [place])
        reader = Reader(page.render(spoilt))
        assert reader.wrong == [], (place, reader.wrong)
    read(samples.hostile(value))


def drawn(reader: Reader) -> int:
    return sum(reader.count.get(tag, 0) for tag in ("rect", "circle", "path", "line", "text"))


def test_many_events_stay_small() -> None:
    text = page.render(samples.many(10_000))
    assert len(text.encode()) < 6_000_000
    reader = Reader(text)
    assert reader.wrong == []
    assert reader.count["tr"] > 10_000
    less = drawn(Reader(page.render(samples.many(2_000))))
    assert 500 < less < 8000 and drawn(reader) < 8000


def test_all_events_are_in_the_marks() -> None:
    """Events with a time are drawn: one by one, or counted."""
    report = samples.many(3_000)
    story = page.Story(report)
    line = page.TimeLine(story)
    marks = Reader(line.draw())
    told = [words for words in marks.text if words.strip()]
    counts = sum(int(words.lstrip("✘▲")) for words in told
                 if re.fullmatch(r"[✘▲]?\d+", words) and words != "12")
    more = Reader(line.draw().replace("<title>", "<p>").replace("</title>", "</p>"))
    single = len(re.findall(r'<g><title>[^<\n]*</title>(?:<circle|<path d="M[^"]*h-15z|<rect[^>]*'
                            r'width="14")', line.draw()))
    bars = len(re.findall(r'class="bar[^"]*"[^>]*><title>|class="bar[^"]*" rx="1"><title>',
                          line.draw()))
    phases = sum(event["type"] == "phase" and event["us"] >= 0 for event in report["events"])
    assert more.count["p"] > 100
    assert counts + single + bars == len(line.placed) - phases


def test_evidence_stands_out_in_the_time_line() -> None:
    drawing = page.TimeLine(page.Story(samples.violations())).draw()
    marks = drawing[:drawing.index('class="legend"')]
    assert marks.count("mark bad") == marks.count('<a href="#failure-') > 10
    assert set(re.findall(r'<a href="#failure-(\d)"><g><title>', drawing)) == {"0", "1", "2", "3"}
    # QEMU's complaint is nobody's evidence in this report.
    assert len(re.findall(r"<g><title>[^<]*QEMU complained", drawing)) == 1
    calm = str(page.TimeLine(page.Story(samples.clean())).draw())
    calm = calm[:calm.index('class="legend"')]
    assert "mark calm" in calm and "mark bad" not in calm and "mark odd" not in calm


def test_lanes_of_evidence_come_before_others() -> None:
    report = samples.many(3_000)
    report["events"].append({"type": "call", "us": 7, "service": "FreePool", "blame": 1000})
    report["verdicts"].append(samples.verdict("driver", "late", "C2", "fail",
                                              evidence=[len(report["events"]) - 1]))
    drawing = page.TimeLine(page.Story(report)).draw()
    lanes = re.findall(r"<li title=[^>]*>([^<]*)</li>", drawing)
    assert len(lanes) <= 2 * (page.LANES + 1) and re.fullmatch(r"\d+ more", lanes[page.LANES])
    assert {"Firmware", "XenBusDxe", "image 1000", "00:05.0 (virtio-net)"} <= set(lanes)


def test_regions_stay_bounded() -> None:
    report = samples.clean()
    report["regions"] = [
        {"type": "region", "base": hex(at * 8192), "size": 4096 if at % 2 else 8192,
         "memory": ("free", "boot", "runtime")[at % 3], "watched": True} for at in range(20_000)]
    drawing = page.MemoryMap(page.Story(report))
    assert len(drawing.pieces) < 4 * page.REGIONS
    where = drawing.x(samples.RING)
    assert where is not None and 0 < where < drawing.WIDTH
    read(report)


def test_shared_memory_is_placed() -> None:
    report = samples.violations()
    drawing = page.MemoryMap(page.Story(report))
    assert [page.kinds_at(drawing.regions, drawing.starts, at, at + 16) for at in
            (samples.RING, 0x7800000, 0x7D80000, 0xA0000, 0xFF000000, 0x9FFF8)] == [
        ["boot"], ["boot"], ["reserved"], ["reserved"], [], ["free", "reserved"]]
    places = [drawing.x(base) for base, *_ in sorted(drawing.shared, key=lambda part: part[0])]
    assert None not in places and places == sorted(place for place in places if place is not None)
    row = next(row for row in drawing.table().split("<tr>") if "0x7ce9000" in row)
    assert re.findall(r"<td>([^<]*)</td>", row) == ["queue 0 used ring", "2.006 KiB", "yes", "boot",
                                                    "yes", "live", "live", "1"]
    assert drawing.x(1 << 60) is None and drawing.x(0xF0000000) is not None


@pytest.mark.parametrize(("points", "high", "folds"), [
    ([0, 10, 20, 30], 40.0, 0), ([0, 5, 12, 20], 1_000_020.0, 1),
    ([0, 5, 500_000, 500_009], 1_000_000.0, 2), ([], 10.0, 0), ([3], 0.0, 0),
    ([0, 5, 1_000_000], 1_000_010.0, 1)])
def test_axis(points: list[float], high: float, folds: int) -> None:
    axis = page.Axis(points, 0.0, high, 18.0, 900.0, True)
    assert sum(piece.folded for piece in axis.pieces) == folds
    places = [axis.x(value) for value in sorted([0.0, *points, high])]
    assert places == sorted(places) and places[0] == 18.0
    assert high == 0 or places[-1] == pytest.approx(918.0)
    assert all(18 <= place <= 918.01 for place in places)
    if folds:  # what the fold was made for: near events stand apart
        assert axis.x(5) - axis.x(0) > 40
    free = -math.inf
    for at, words in re.findall(r'<text x="([\d.]+)"[^>]*>([^<]*)</text>', axis.draw(60, 100, 936)):
        half = page.CHAR * len(words) / 2
        assert float(at) - half >= free - 1, words
        free = float(at) + half


def test_the_fold_says_how_long_it_is() -> None:
    report = samples.clean()
    for event in report["events"]:
        if event["type"] == "handler":
            event["duration"] += 2_000_000
    assert "⋯ 2.000 s" in read(report).words


def test_bursts_and_the_first_call() -> None:
    report = samples.clean()
    for event in report["events"]:
        if event.get("phase") == "call":
            del event["us"]  # nothing can be timed before it
    report["events"] += [
        {"type": "host-taken", "by": "host", "device": samples.NIC, "us": 1911.0, "count": 3,
         "queue": 0, "until": 1970.4},
        {"type": "host-status", "by": "host", "device": samples.NIC, "us": 1912.0, "value": "0x0b",
         "echo": True},
        {"type": "host-notify", "by": "host", "device": samples.NIC, "us": 2e6, "queue": 1,
         "auditor": True}]
    reader = read(report)
    assert "00:05.0 (virtio-net) took 3 request(s) or buffer(s), queue 0, until 1.970 ms" \
        in reader.words
    assert "00:05.0 (virtio-net) was notified, queue 1 (this was the auditor)" in reader.words
    assert "(ACKNOWLEDGE, DRIVER, FEATURES_OK) (QEMU does this when" in reader.words
    assert re.search(r">0 µs {2}#2 ExitBootServices is called \(attempt 1\)", page.TimeLine(
        page.Story(report)).draw())
    assert "without a time" not in reader.words


def test_lines_that_are_not_known_are_passed_over() -> None:
    report = samples.clean()
    report["events"].append({"type": "gossip", "us": 5, "device": samples.DISK, "new": {"a": [1]}})
    report["new"] = {"x": 1}
    assert 'gossip: {"device": "0000:00:04.0", "new": {"a": [1]}}' in read(report).words


def test_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text("old")
    with pytest.raises(LabError, match="cannot be written"):
        page.write({}, tmp_path / "none" / "page.html")
    with pytest.raises(TypeError):
        page.write({"x": object()}, target)
    assert target.read_text() == "old"
    page.write(samples.hostile(), target)
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(("content", "said"), [
    (None, "cannot be read"), ("{", "is not JSON"), ("[" * 100_000, "is not JSON"),
    ("[]", "not the report"), ('{"format":"baton-audit","version":2}', "version 2")])
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None,
                 said: str) -> None:
    source, target = tmp_path / "report.json", tmp_path / "page.html"
    if content is not None:
        source.write_text(content)
    assert page.main([str(source), str(target)]) == 2
    assert said in capsys.readouterr().err and not target.exists()
    source.write_text(json.dumps(samples.clean()))
    assert page.main([str(source), str(target)]) == 0
    assert target.read_text(encoding="utf-8") == page.render(samples.clean())


# In a browser.

MEASURE = r"""
<script>
for (const details of OPEN ? document.querySelectorAll("details") : []) details.open = true;
const wrong = [], width = document.documentElement.clientWidth;
const say = (what, element) => wrong.push(what + ": " + element.tagName + " " +
    element.textContent.slice(0, 60));
if (document.documentElement.scrollWidth > width) wrong.push("the page scrolls sideways");
for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect(), inner = element.parentElement.closest(".scroll");
    if (!inner && box.width && (box.right > width + 0.5 || box.left < -0.5))
        say("too wide", element);
}
for (const svg of document.querySelectorAll("svg")) {
    const whole = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll("text")];
    const boxes = texts.map(text => text.getBoundingClientRect());
    boxes.forEach((one, index) => {
        if (one.left < whole.left - 1 || one.right > whole.right + 1 || one.top < whole.top - 1 ||
            one.bottom > whole.bottom + 1) say("clipped", texts[index]);
        for (let at = 0; at < index; at++) {
            const other = boxes[at];
            if (one.left < other.right - 1 && other.left < one.right - 1 &&
                one.top < other.bottom - 3 && other.top < one.bottom - 3)
                say("on top of " + texts[at].textContent, texts[index]);
        }
    });
}
const numbers = color => color.match(/[\d.]+/g).map(Number);
const light = color => {
    const [r, g, b] = numbers(color).map(part => part / 255).map(
        part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
let contrast = 99;
for (const element of document.body.querySelectorAll("main *")) {
    if (element.closest("svg") || ![...element.childNodes].some(
        node => node.nodeType === 3 && node.data.trim())) continue;
    let behind = element;
    while (behind && (numbers(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0)
        behind = behind.parentElement;
    const one = light(getComputedStyle(element).color);
    const two = light(behind ? getComputedStyle(behind).backgroundColor : "rgb(255, 255, 255)");
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    contrast = Math.min(contrast, ratio);
    if (ratio < 4.5) say("contrast " + ratio, element);
}
document.body.innerHTML = "";
document.body.append("MEASURED" + JSON.stringify({
    wrong: wrong.slice(0, 20), width: innerWidth, contrast,
    dark: matchMedia("(prefers-color-scheme: dark)").matches}) + "DONE");
</script>
"""


# A window may not be as narrow as a telephone, but a frame may.
FRAME = """<!DOCTYPE html><body><iframe src="measured.html" width="WIDTH" height="900"
style="border:0" onload="document.body.append(this.contentDocument.body.textContent)"></iframe>"""


def unprotected(text: str) -> str:
    """The page without its policy."""
    assert text.count('<meta http-equiv=') == 1
    return re.sub('<meta http-equiv=[^>]*>', "", text)


@dataclass
class Browser:
    """Chromium, without a window and without a network."""

    folder: Path
    said: str = ""

    def run(self, target: Path, width: int, *options: str) -> str:
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                   "--disable-background-networking", "--disable-component-update",
                   "--disable-breakpad", "--disable-dev-shm-usage", "--enable-logging=stderr",
                   "--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},1000",
                   "--allow-file-access-from-files", f"--log-net-log={self.folder / 'net.json'}",
                   f"--user-data-dir={self.folder / 'profile'}", *options, target.as_uri()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, errors="replace", start_new_session=True)
        try:
            out, self.said = process.communicate(timeout=120)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        assert process.returncode == 0, self.said
        return out

    @property
    def asked_for(self) -> list[str]:
        """What the page asked the network for. What Chromium wants for itself has no origin."""
        log = json.loads((self.folder / "net.json").read_text())
        return [params["url"] for event in log["events"]
                if isinstance(params := event.get("params"), dict) and "url" in params
                and params.get("initiator", "not an origin") != "not an origin"]

    @property
    def console(self) -> list[str]:
        return [line for line in self.said.splitlines() if "CONSOLE" in line]

    def measure(self, text: str, width: int, *options: str,
                unfolded: bool = True) -> dict[str, Any]:
        """Loads the page, with our script at its end, and gives what that has measured."""
        script = MEASURE.replace("OPEN", "true" if unfolded else "false")
        (self.folder / "measured.html").write_text(
            unprotected(text).replace("</body>", f"{script}</body>"), encoding="utf-8")
        target = self.folder / "frame.html"
        target.write_text(FRAME.replace("WIDTH", str(width)))
        found = re.search(r"MEASURED(.*)DONE", self.run(target, 1400, "--dump-dom", *options),
                          re.DOTALL)
        assert found is not None, self.said
        text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        measured = json.loads(text)
        assert isinstance(measured, dict)
        assert measured["width"] == width
        return measured


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser(tmp_path)


DARK = "--blink-settings=preferredColorScheme=0"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("sample", [samples.violations, samples.could_not, samples.hostile,
                                    lambda: samples.many(1500)],
                         ids=["violations", "could-not", "hostile", "many"])
def test_browser(browser: Browser, sample: Callable[[], dict[str, Any]], width: int) -> None:
    found = browser.measure(page.render(sample()), width)
    assert found["wrong"] == []
    assert browser.asked_for == [] and browser.console == []
    assert found["contrast"] >= 4.5 and not found["dark"]


def test_browser_dark_and_folded(browser: Browser) -> None:
    found = browser.measure(page.render(samples.violations()), 1280, DARK, unfolded=False)
    assert found["dark"] and found["wrong"] == [] and found["contrast"] >= 4.5


def test_browser_sees_what_is_wrong(browser: Browser) -> None:
    bad = page.render(samples.violations()).replace("<main>", (
        '<main><p style="width:2000px">wide</p><p style="color:#999;background:#aaa">pale</p>'
        '<svg width="50" height="20"><text x="0" y="9">long, clipped</text><text x="0" y="9">over'
        '</text></svg>'))
    wrong = " ".join(browser.measure(bad, 1280)["wrong"])
    for what in ("too wide", "sideways", "contrast", "clipped", "on top of"):
        assert what in wrong


def test_browser_fetches_nothing_even_if_told_to(browser: Browser) -> None:
    """Should hostile text ever get through, the page's own policy still stands."""
    evil = page.render(samples.clean()).replace("<main>", (
        '<main><img src="http://baton.invalid/x.png"><script>document.title = "taken"</script>'))
    target = browser.folder / "evil.html"
    target.write_text(evil, encoding="utf-8")
    assert "<title>taken" not in browser.run(target, 1280, "--dump-dom")
    assert sum("Content Security Policy" in line for line in browser.console) == 2
    assert browser.asked_for == []
    target.write_text(unprotected(evil), encoding="utf-8")
    assert "<title>taken" in browser.run(target, 1280, "--dump-dom")
    assert browser.asked_for == ["http://baton.invalid/x.png"]


def test_browser_draws(browser: Browser) -> None:
    """A picture of the page as it is comes out, and is not empty."""
    target, picture = browser.folder / "page.html", browser.folder / "page.png"
    page.write(samples.violations(), target)
    browser.run(target, 1280, f"--screenshot={picture}")
    assert browser.console == []
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and picture.stat().st_size > 20_000
