"""A plugin that does what the URL says: a program of its own, and the oracle of the protocol.

It uses nothing of cafs. ``x:bytes/N`` has N bytes, of which the one at ``i`` is ``i % 251``; the
other words are in ``ANSWERS``. Flags say how it greets.
"""

import argparse
import json
import os
import sys
import threading
import time
from typing import Any
from urllib.parse import unquote

FRAME = 64 << 10
PATTERN = bytes(range(251))
Get = dict[str, Any]


def note(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def content(start: int, stop: int) -> bytes:
    first = start % 251
    whole = PATTERN * ((stop - start) // 251 + 2)
    return whole[first : first + stop - start]


class Plugin:
    def __init__(self, obey: bool) -> None:
        self.lock = threading.Lock()
        self.credit = threading.Condition()
        self.allowed: dict[int, int] = {}
        self.cancelled: set[int] = set()
        self.obey = obey

    def say(self, line: Get, data: bytes = b"") -> None:
        raw = json.dumps(line).encode() + b"\n" + data
        with self.lock:
            sys.stdout.buffer.write(raw)
            sys.stdout.buffer.flush()

    def send(self, number: int, data: bytes) -> bool:
        at = 0
        while at < len(data):
            piece = data[at : at + FRAME]
            with self.credit:
                while self.obey and self.allowed[number] < len(piece):
                    if number in self.cancelled:
                        return False
                    self.credit.wait()
                self.allowed[number] -= len(piece)
            self.say({"id": number, "data": len(piece)}, piece)
            at += len(piece)
        return True

    def take(self, line: Get) -> None:
        if "get" in line:
            number = line["id"]
            self.allowed[number] = line["get"]["window"]
            path = line["get"]["url"].partition(":")[2].partition("?")[0]
            word, _, rest = path.partition("/")
            answer = ANSWERS[word]
            run = threading.Thread(target=answer, args=(self, number, rest, line["get"]))
            run.daemon = True
            run.start()
            return
        with self.credit:
            if "more" in line:
                self.allowed[line["more"]] += line["bytes"]
            if "cancel" in line:
                self.cancelled.add(line["cancel"])
                note(f"cancelled {line['cancel']}")
            self.credit.notify_all()


def whole(plugin: "Plugin", number: int, data: bytes, get: Get) -> None:
    start, stop = get["span"] or (0, len(data))
    stop = min(stop, len(data))
    span = None if get["span"] is None else [start, stop]
    plugin.say({"id": number, "head": {"total": len(data), "span": span, "validator": "v1"}})
    plugin.send(number, data[start:stop])
    plugin.say({"id": number, "done": {}})


def bytes_(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    total = int(rest)
    start, stop = get["span"] or (0, total)
    stop = min(stop, total)
    if start >= total and get["span"]:
        error = {"kind": "refused", "what": "behind the end", "total": total}
        plugin.say({"id": number, "error": error})
        return
    head = {"total": total, "span": get["span"] and [start, stop], "validator": '"v1"'}
    plugin.say({"id": number, "head": {**head, "content_type": "x/y", "max_age_s": 60}})
    if plugin.send(number, content(start, stop)):
        plugin.say({"id": number, "done": {"document": {"v": 1, "asked": number}}})
    else:
        plugin.say({"id": number, "error": {"kind": "cancelled"}})


def echo(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    whole(plugin, number, json.dumps(get).encode(), get)


def env(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    whole(plugin, number, os.environ.get(rest, "").encode(), get)


def pid(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    whole(plugin, number, str(os.getpid()).encode(), get)


def die(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    note(f"cannot go on with {get['url']}")
    note("disk on fire")
    os._exit(int(rest or 3))


def half(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    plugin.say({"id": number, "head": {"total": 2 * FRAME}})
    plugin.send(number, content(0, FRAME))
    die(plugin, number, "4", get)


def silent(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    note("thinking")


def stalled(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    plugin.say({"id": number, "head": {"total": 10}})
    plugin.say({"id": number, "data": 5}, b"12345")


def late(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    time.sleep(float(rest))
    whole(plugin, number, b"late", get)


def afterword(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    whole(plugin, number, b"x", get)
    time.sleep(0.2)
    note(f"that was {get['url']}")


def say(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    """Exactly the bytes that the URL says, with ID for the number."""
    with plugin.lock:
        note("about to babble")
        sys.stdout.buffer.write(unquote(rest).replace("ID", str(number)).encode())
        sys.stdout.buffer.flush()


def error(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    kind, _, more = rest.partition("/")
    said: Get = {"kind": kind, "what": f"no: {get['url']}"}
    if more:
        said["retry_after_s"] = float(more)
    plugin.say({"id": number, "error": said})


def cached(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    if get["cached"]:
        end: Get = {"document": {"seen": (get["document"] or {}).get("seen", 0) + 1}}
        if rest:
            end["max_age_s"] = int(rest)
        plugin.say({"id": number, "use-cached": end})
        return
    plugin.say({"id": number, "head": {"total": 3}})
    plugin.send(number, b"abc")
    plugin.say({"id": number, "done": {"document": {"seen": 1}}})


def flood(plugin: "Plugin", number: int, rest: str, get: Get) -> None:
    plugin.obey = False
    plugin.say({"id": number, "head": {"total": int(rest)}})
    plugin.send(number, content(0, int(rest)))


ANSWERS = {
    "bytes": bytes_,
    "echo": echo,
    "env": env,
    "pid": pid,
    "die": die,
    "half": half,
    "silent": silent,
    "stalled": stalled,
    "late": late,
    "afterword": afterword,
    "say": say,
    "error": error,
    "cached": cached,
    "flood": flood,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", default="[1, 0]")
    parser.add_argument("--schemes", default="x")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--greeting")
    parser.add_argument("--die", action="store_true")
    parser.add_argument("--mute", action="store_true")
    parser.add_argument("--deaf", action="store_true", help="does not end with its stdin")
    flags = parser.parse_args()
    plugin = Plugin(flags.requests != 1)
    hello = json.loads(sys.stdin.buffer.readline())
    assert hello == {"cafs": {"version": [1, 0]}}, hello
    if flags.die:
        sys.exit("no licence")
    if flags.mute:
        note("meditating")
        time.sleep(60)
    if flags.greeting is not None:
        sys.stdout.write(f"{flags.greeting}\n")
        sys.stdout.flush()
        time.sleep(60)
    said: Get = {
        "name": "x",
        "version": json.loads(flags.version),
        "schemes": flags.schemes.split(","),
    }
    if flags.requests:
        said["requests"] = flags.requests
    plugin.say({"plugin": said})
    for line in sys.stdin.buffer:
        plugin.take(json.loads(line))
    while flags.deaf:
        time.sleep(60)


main()
