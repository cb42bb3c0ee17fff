"""Access logs: reads Apache's and nginx's combined format (plain or gzip), or makes one up of the same shape."""

import collections
import gzip
import random
import re
import sys
import uuid

Request = collections.namedtuple("Request", "key address merchant amount")

# address, identity, user, [time], "method path protocol", status, bytes: the common part of both formats
LINE = re.compile(r'(\S+) \S+ .*?\[[^\]]+\] "(?:\S+ )?(\S*)[^"]*" \d{3} (\d+|-)')
NAMESPACE = uuid.UUID("6f0f5d3a-0f0b-5a5e-9b1f-0d1257575000")


def request(number, address, path, size):
    """Line number `number` as a payment: the address pays the first folder of the path one cent for each 100 bytes."""
    merchant = path.split("?")[0].strip("/").split("/")[0] or "front-page"
    return Request(str(uuid.uuid5(NAMESPACE, str(number))), address[:60], merchant[:60], 1 + size // 100)


def read(file):
    """Requests of a log file; lines of another shape are skipped and counted."""
    with open(file, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    requests, skipped = [], 0
    with (gzip.open if zipped else open)(file, "rt", encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines):
            found = LINE.match(line)
            if not found:
                skipped += 1
                continue
            address, path, size = found.groups()
            requests.append(request(number, address, path, 0 if size == "-" else int(size)))
    if not requests:
        sys.exit(f"{file}: no line in combined format (Apache, nginx) found")
    return requests, skipped


def generate(lines, seed):
    """A made-up log: few addresses send much (crawlers, feed readers), many send one page and its pictures."""
    rng = random.Random(seed)
    addresses = [f"198.51.{rng.randrange(256)}.{rng.randrange(1, 255)}" for _ in range(max(20, lines // 6))]
    weights = [1 / (rank + 2) for rank in range(len(addresses))]
    folders = ["presentations", "blog", "images", "files", "projects", "articles", "robots.txt", "reset.css", "feed"]
    requests = []
    while len(requests) < lines:
        address = rng.choices(addresses, weights)[0]
        for _ in range(min(int(rng.expovariate(0.4)) + 1, 12)):
            requests.append(request(len(requests), address, "/" + rng.choice(folders) + "/", int(rng.paretovariate(1.1) * 900)))
    return requests[:lines], 0
