# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Reports of audits, as docs/audit-format.md has them, made up."""

from typing import Any

Report = dict[str, Any]

TITLES = ("One event per binding", "Clean hands", "Alive or dormant", "Nothing in flight",
          "Memory outlives the device's view of it", "Bounded", "As found")
CORE, PCI_BUS, BLK, XEN, NET, MNP = range(6)
DISK, NIC, BRIDGE = "0000:00:04.0", "0000:00:05.0", "0000:00:1f.0"
RING, BUFFER, NIC_RING = 0x7E5A000, 0x7CD0000, 0x7CE9000


def _images() -> list[Report]:
    names = ("DxeCore", "PciBusDxe", "VirtioBlkDxe", "XenBusDxe", "VirtioNetDxe", "MnpDxe")
    return [{"type": "image", "image": number, "name": name, "path": None, "core": number == CORE,
             "guid": f"{number:08x}-0000-4000-8000-000000000000", "auditor": False,
             "base": f"{0x7E80000 + number * 0x10000:#x}", "size": 0x9000}
            for number, name in enumerate(names)]


def _device(place: str, kind: str, device_id: str, drivers: list[int], option: str | None,
            busy: str) -> Report:
    return {"type": "device", "device": place, "vendor": "0x1af4", "id": device_id, "kind": kind,
            "class": "010000", "path": f"PciRoot(0x0)/Pci({place[8:10]},0x0)", "drivers": drivers,
            "busy": busy, "option": option}


def _regions() -> list[Report]:
    kinds = (("boot", 0x1000), ("free", 0x9F000), ("reserved", 0x60000), ("free", 0x700000),
             ("acpi", 0x8000), ("free", 0x3000), ("acpi", 0x4000), ("boot", 0xF0000),
             ("free", 0x6A00000), ("loader", 0x40000), ("boot", 0x900000), ("free", 0x2000),
             ("runtime", 0x80000), ("boot", 0x60000), ("reserved", 0x84000), ("acpi", 0x12000),
             ("boot", 0x200000), ("runtime", 0x84000), ("mmio", 0x1000000))
    base, regions = 0, []
    for kind, size in kinds:
        if kind == "mmio":
            base = 0xFE000000
        regions.append({"type": "region", "base": hex(base), "size": size, "memory": kind,
                        "watched": kind in ("free", "boot")})
        base += size
    return regions


def _shared() -> list[Report]:
    def one(device: str, what: str, base: int, size: int, write: bool) -> Report:
        return {"type": "shared", "device": device, "what": what, "base": hex(base), "size": size,
                "write": write}
    return [one(DISK, "queue 0 descriptors", RING, 2048, False),
            one(DISK, "queue 0 available ring", RING + 0x800, 262, False),
            one(DISK, "queue 0 used ring", RING + 0x1000, 1030, True),
            one(DISK, "data buffer", 0x7800000, 65536, True),
            one(NIC, "queue 0 used ring", NIC_RING, 2054, True),
            *(one(NIC, "receive buffer", BUFFER + number * 0x800, 1526, True)
              for number in range(16))]


def _state(device: str, moment: str, us: int, live: bool) -> Report:
    return {"type": "state", "device": device, "when": moment, "us": us,
            "command": "0x0007" if live else "0x0003", "live": live,
            "status": "0x0f" if live else "0x00", "queues": [0] if live else [], "what": ""}


def _phase(name: str, us: int, **more: object) -> Report:
    return {"type": "phase", "phase": name, "us": us, **more}


def _handler(us: int, ran: int, image: int) -> Report:
    return {"type": "handler", "us": us, "duration": ran, "attempt": 1, "image": image,
            "tpl": 16 if image == BLK else 8, "group": "exit", "map_changed": False}


def verdict(subject: str, name: str, rule: str, judged: str, why: str = "as it should be",
            **more: object) -> Report:
    return {"type": "verdict", "subject": subject, "name": name, "image": None, "rule": rule,
            "verdict": judged, "why": why, "by": "guest", "evidence": [], **more}


def counted(report: Report) -> Report:
    """With the counts and the result that follow from its verdicts."""
    found = [line["verdict"] for line in report["verdicts"]]
    report["counts"] = {kind: found.count(kind) for kind in ("pass", "fail", "unseen")}
    if report["error"] is None:
        report["result"] = "violations" if report["counts"]["fail"] else "clean"
    return report


def clean() -> Report:
    """Every driver lets go."""
    events = [
        _phase("connect", -4_200_000), _phase("busy", -900_000), _phase("call", 0, attempt=1),
        _phase("before-done", 14, attempt=1), _handler(21, 38, BLK), _handler(66, 51, NET),
        {"type": "host-status", "by": "host", "device": DISK, "us": 24, "value": 0},
        {"type": "host-command", "by": "host", "device": DISK, "us": 41, "value": 3},
        {"type": "host-status", "by": "host", "device": NIC, "us": 70, "value": 0},
        _phase("return", 131, attempt=1, status="success"),
        *(_state(device, moment, us, moment == "call") for device in (DISK, NIC)
          for moment, us in (("call", 2), ("exit", 190), ("end", 2_004_000))),
        _phase("owner", 320), _phase("filled", 410_000, round=1),
        _phase("watching", 411_000, round=1),
        {"type": "notified", "device": DISK, "us": 600_000, "queues": 1},
        {"type": "watch", "round": 1, "us": 1_411_000, "ms": 1000, "bytes": 117440512},
        _phase("judging", 2_005_000)]
    rules = {DISK: "C3 C4 C5 C7", NIC: "C3 C4 C5 C7"}
    return counted({
        "format": "baton-audit", "version": 1, "result": "clean", "error": None,
        "machine": {"qemu": "7.2.22", "date": "2026-08-30T11:02:09+00:00", "retries": 0,
                    "hypervisor": "TCG", "accelerator": "tcg", "machine": "q35",
                    "memory": 134217728,
                    "command": ["qemu-system-x86_64", "-machine", "q35", "-device",
                                "virtio-blk-pci,drive=d,romfile=build/baton.rom"]},
        "firmware": {"file": "/usr/share/OVMF/OVMF_CODE.fd", "package": "ovmf 2022.11-6+deb12u2",
                     "sha256": "5f" * 32, "vendor": "EDK II", "revision": "1.0", "uefi": "2.70"},
        "rules": [{"rule": f"C{number}", "title": title}
                  for number, title in enumerate(TITLES, 1)],
        "images": _images(),
        "devices": [_device(DISK, "virtio-blk", "0x1042", [PCI_BUS, BLK], "virtio-blk", "reading"),
                    _device(NIC, "virtio-net", "0x1041", [PCI_BUS, NET, MNP], "virtio-net",
                            "receiving"),
                    _device(BRIDGE, "bridge", "0x2918", [], None, "idle")],
        "regions": _regions(), "shared": _shared(), "events": events, "evidence": [],
        "verdicts": [
            verdict("firmware", "EDK II 1.0", "C2", "pass"),
            *(verdict("driver", name, rule, "pass", image=image)
              for name, image in (("VirtioBlkDxe", BLK), ("VirtioNetDxe", NET))
              for rule in ("C1", "C2", "C6")),
            *(verdict("device", device, rule, "pass", by="both")
              for device, words in rules.items() for rule in words.split())],
        "counts": {}})


def _call(us: int, service: str, args: list[str], offset: int, judged: str,
          **more: object) -> Report:
    return {"type": "call", "us": us, "attempt": 1, "group": "exit", "service": service,
            "args": args, "address": hex(0x7EB0000 + offset), "image": XEN, "offset": hex(offset),
            "via": [CORE, XEN], "blame": XEN, "depth": 0, "judged": judged, **more}


def violations() -> Report:
    """A driver that frees memory, and a network device that goes on receiving."""
    report = clean()
    events: list[Report] = [event for event in report["events"]
                            if event.get("device") != NIC and event["type"] != "watch"]

    def add(event: Report) -> int:
        events.append(event)
        return len(events) - 1
    calls = [add(_call(73, "DisconnectController", ["0x7d1a018", "0x0", "0x0"], 0x12C4,
                       "contract")),
             add(_call(75, "CloseEvent", ["0x7cc4d98"], 0x11A0, "contract", depth=1)),
             add(_call(84, "FreePages", ["0x7e02000", "4"], 0x1C07, "specification", depth=1)),
             add(_call(92, "FreePool", ["0x7d22a98"], 0x1C40, "specification", depth=1))]
    add(_handler(70, 49, XEN))
    changed = add({"type": "map-change", "base": "0x7e02000", "size": 16384, "was": "boot",
                   "is": "free"})
    live = [add(_state(NIC, "exit", 191, True)), add(_state(NIC, "end", 2_004_100, True))]
    add(_state(NIC, "call", 3, True))
    packets = [add({"type": "host-packet", "by": "host", "device": NIC, "us": us, "count": 3})
               for us in range(450_000, 1_400_000, 23_000)]
    changes = [add({"type": "change", "round": 1, "address": hex(BUFFER + at * 0x800 + 12),
                    "size": 60, "expected": "b4" * 32, "found": "b4b4" + "ff" * 6 + "52540012" * 6,
                    "device": NIC, "what": "receive buffer", "owner": NET}) for at in range(3)]
    used = add({"type": "change", "round": 1, "address": hex(NIC_RING + 2), "size": 2,
                "expected": "b4b4", "found": "2a00", "device": NIC, "what": "queue 0 used ring",
                "owner": NET})
    damage = add({"type": "watch", "round": 1, "us": 1_411_000, "ms": 1000, "bytes": 117440512})
    add({"type": "host-error", "by": "host", "device": NIC, "us": 1_500_000,
         "what": "virtio-net header not in first element"})
    report["events"] = events
    report["evidence"] = [{"type": "lost", "what": "call", "count": 12}]
    kept = [line for line in report["verdicts"]
            if line["subject"] == "driver" or line["name"] == DISK]
    report["verdicts"] = [
        verdict("firmware", "EDK II 1.0", "C2", "fail", "the memory map changed during the exit: "
                "the loader's map calls 16384 bytes at 0x7e02000 boot, and they are free",
                evidence=[changed]),
        *kept,
        verdict("driver", "XenBusDxe", "C1", "pass", image=XEN),
        verdict("driver", "XenBusDxe", "C2", "fail", "it called 4 boot services from its exit "
                "handler, 2 of which the specification forbids", image=XEN, evidence=calls),
        verdict("driver", "XenBusDxe", "C6", "pass", image=XEN),
        verdict("device", NIC, "C3", "unseen", "nothing was done to it"),
        verdict("device", NIC, "C4", "fail", "it put packets into memory after the exit",
                by="both", evidence=[*packets, *changes, used, damage]),
        verdict("device", NIC, "C5", "unseen", "its memory was freed by nobody"),
        verdict("device", NIC, "C7", "fail", "its status is 0x0f after the exit, and bus mastering "
                "is on", by="both", evidence=live)]
    return counted(report)


def could_not() -> Report:
    """The firmware never came up."""
    report = clean()
    report |= {"result": "could not audit", "images": [], "devices": [], "regions": [],
               "shared": [], "events": [], "verdicts": [], "evidence": [],
               "error": "the firmware printed nothing within 180 s"}
    report["firmware"] |= {"vendor": None, "revision": None, "uefi": None, "package": None}
    return counted(report)


def many(count: int) -> Report:
    """So many events, spread over the exit and the watch and over many drivers and devices."""
    report = violations()
    events: list[Report] = report["events"]
    for at in range(count - len(events)):
        if at % 3 == 0:
            events.append(_call(at % 119, "LocateHandleBuffer", ["2", hex(at)], at, "allowed",
                                blame=at % 97))
        elif at % 3 == 1:
            events.append({"type": "host-used", "by": "host", "us": 1000 + at * 190, "count": 1,
                           "device": f"0000:{at % 60:02x}:00.0"})
        else:
            events.append({"type": "change", "round": 1, "address": hex(0x1000000 + at * 4096),
                           "size": 64, "expected": "b4" * 32, "found": "00" * 32, "device": None,
                           "what": "", "owner": None})
    return report


EVIL = ('</script><script>alert(1)</script><img src=//evil.example/x onerror=alert(1)>'
        '"\'&amp;<!-- \x00\x1b[31m\u202egnp.\ud800 {0} %s')


def hostile(value: object = EVIL) -> Report:
    """Every text of the report is replaced by this one, and every key of a line has a twin."""
    kept = ("type", "verdict", "subject", "rule", "result", "format", "phase", "when", "base",
            "address", "memory")

    def spoil(part: Any, key: str = "") -> Any:
        if isinstance(part, dict):
            return {name: spoil(inner, name) for name, inner in part.items()} | {EVIL: value}
        if isinstance(part, list):
            return [spoil(inner, key) for inner in part]
        return value if isinstance(part, str) and key not in kept else part
    spoilt = spoil(violations())
    assert isinstance(spoilt, dict)
    return spoilt
