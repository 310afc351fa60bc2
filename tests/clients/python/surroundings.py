"""The broker and the storage emulator, by the addresses in the environment, and bytes to put there."""

import base64
import contextlib
import hashlib
import os
import random

import google_crc32c
import requests

KIB = 1024
# What non-final chunks of a session are multiples of.
UNIT = 256 * KIB

STORAGE = os.environ["STORAGE_EMULATOR_HOST"]
BUCKET = os.environ["BUCKET"]


def noise(size, seed=1):
    """Bytes that are the same for the same seed, and unlike all others."""
    return random.Random(seed).randbytes(size)


def md5(data):
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def crc32c(data):
    return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


def equal(actual, expected, what=""):
    assert actual == expected, f"{what}: {actual!r}, where {expected!r} was expected"


@contextlib.contextmanager
def raises(kind, text=""):
    """What is inside must fail in this way."""
    try:
        yield
    except kind as error:
        assert text in str(error), f"no {text!r} in {error!r}"
    else:
        raise AssertionError(f"no {kind.__name__} came")


class Broker:
    """Somebody's view of the broker."""

    def __init__(self):
        self.address = os.environ["BROKER"]
        self.session = requests.Session()
        self.session.headers["authorization"] = "Bearer " + os.environ["BROKER_TOKEN"]

    def create(self, data, **more):
        """Creates an upload for these bytes, or for unknown ones, and gives the broker's answer."""
        body = {"filename": "holiday.mp4", "content_type": "video/mp4", **more}
        if data is not None:
            body["size_bytes"] = len(data)
        answer = self.session.post(f"{self.address}/v1/uploads", json=body)
        equal(answer.status_code, 201, answer.text)
        return answer.json()

    def renew(self, upload):
        """Another session for the same upload."""
        answer = self.session.post(f"{self.address}/v1/uploads/{upload['id']}/renew")
        equal(answer.status_code, 200, answer.text)
        return answer.json()

    def complete(self, upload):
        return self.session.post(f"{self.address}/v1/uploads/{upload['id']}/complete")

    def completed(self, upload, data):
        """Completes the upload, which must be an object of exactly these bytes."""
        answer = self.complete(upload)
        equal(answer.status_code, 200, answer.text)
        answer = answer.json()
        equal(answer["state"], "completed", str(answer))
        result = answer["result"]
        found = (result["size_bytes"], result["md5"], result["crc32c"])
        equal(found, (len(data), md5(data), crc32c(data)), "the digests of the object")


@contextlib.contextmanager
def fault(**fault):
    """Something goes wrong at the emulator while this lasts, and must have happened by its end."""
    requests.post(f"{STORAGE}/_emulator/faults", json=[fault]).raise_for_status()
    try:
        yield
        left = requests.get(f"{STORAGE}/_emulator/faults").json()["faults"]
        assert not left, f"the fault never met its call: {left}"
    finally:
        requests.delete(f"{STORAGE}/_emulator/faults").raise_for_status()


def calls(**wanted):
    """The emulator's journal of calls that are such."""
    entries = requests.get(f"{STORAGE}/_emulator/journal").json()["entries"]
    return [entry for entry in entries if all(entry.get(name) == value for name, value in wanted.items())]
