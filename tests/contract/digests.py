"""Writes digests.json, the golden vectors of digest format 1. It does not use Switchboard's own code.

    python3 tests/contract/digests.py > tests/contract/digests.json

lp(x) is the length of x in 4 bytes, big-endian, followed by the bytes of x. Numbers have 8 bytes, big-endian. Ids are
encoded as their text. Authors of other programs that follow the change stream can check these against the vectors.
"""

import hashlib
import json

URL = "type.googleapis.com/switchboard.registry.v1."


def lp(data):
    return len(data).to_bytes(4, "big") + data


def number(value):
    return value.to_bytes(8, "big")


def digest(tag, *parts):
    return hashlib.sha256(tag.encode() + b"".join(parts)).digest()


def item(name, create_revision, revision, type_url, value, requires):
    capabilities = [lp(capability.encode()) for capability in sorted(requires)]
    return digest(
        "swb1 item",
        lp(name.encode()),
        number(create_revision),
        number(revision),
        lp(type_url.encode()),
        lp(value),
        *capabilities,
    )


def state(items):
    return (sum(int.from_bytes(one, "big") for one in items) % 2**256).to_bytes(32, "big")


def life(parent, store, incarnation_number, incarnation):
    return digest("swb1 life", parent, store.encode(), number(incarnation_number), incarnation.encode())


def chain(before, revision, changes):
    """`changes` maps a name to the item's digest, or to None if the name was deleted."""
    parts = []
    for name in sorted(changes, key=str.encode):
        parts.append(b"\1" + changes[name] if changes[name] else b"\0" + lp(name.encode()))
    return digest("swb1 chain", before, number(revision), *parts)


ITEMS = [
    ("settings", 1, 1, URL + "Settings", b"", []),
    ("models/mistral", 3, 7, URL + "ModelEntry", b"\x0a\x00", []),
    ("models/mistral", 3, 8, URL + "ModelEntry", b"\x0a\x00", []),
    ("models/mistral", 9, 9, URL + "ModelEntry", b"\x0a\x00", []),
    ("features/duo_chat", 1, 4, URL + "Feature", b"\x10\x03\x1a\x0emodels/mistral", ["rules", "hedging"]),
    ("gadgets/\u00fc", 2, 2**40, "t", bytes(range(256)) * 2, []),
]
STORE = "00112233445566778899aabbccddeeff"
LIVES = [(1, "ffeeddccbbaa99887766554433221100"), (2, "0123456789abcdef0123456789abcdef")]
# Each revision maps a name to an index into ITEMS, or to None if the name was deleted.
REVISIONS = [
    {"settings": 0, "models/mistral": 1},
    {},
    {"models/mistral": None, "features/duo_chat": 4, "models/never": None},
    {"models/mistral": 3},
]


def main():
    digests = [item(*one) for one in ITEMS]
    items = [
        {
            "name": name,
            "create_revision": create_revision,
            "revision": revision,
            "type_url": type_url,
            "value": value.hex(),
            "requires": requires,
            "digest": one.hex(),
        }
        for (name, create_revision, revision, type_url, value, requires), one in zip(ITEMS, digests)
    ]
    states = [
        {"items": indexes, "digest": state([digests[index] for index in indexes]).hex()}
        for indexes in ([], [0], [0, 1], [4, 1, 0], list(range(len(ITEMS))))
    ]
    lives, last = [], bytes(32)
    for incarnation_number, incarnation in LIVES:
        begin = last = life(last, STORE, incarnation_number, incarnation)
        revisions = []
        for offset, changes in enumerate(REVISIONS):
            revision = incarnation_number * 10 + offset
            named = {name: None if index is None else digests[index] for name, index in changes.items()}
            last = chain(last, revision, named)
            revisions.append({"revision": revision, "changes": changes, "chain": last.hex()})
        lives.append(
            {
                "number": incarnation_number,
                "incarnation": incarnation,
                "begin": begin.hex(),
                "revisions": revisions,
            }
        )
    vectors = {
        "about": "golden vectors of digest format 1, written by digests.py; values are hexadecimal, "
        "changes name an item by its index or, if the name was deleted, null",
        "items": items,
        "states": states,
        "store": STORE,
        "lives": lives,
    }
    print(json.dumps(vectors, indent=2, ensure_ascii=False))


main()
