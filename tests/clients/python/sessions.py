"""Sessions that the broker issued, driven by both generations of Google's resumable uploads.

google-resumable-media is the library of its own, google.cloud.storage has taken it in and changed it: it sends the
digest with the last request.
"""

import io
import os

import google.cloud.storage._media.requests as current
import google.resumable_media.requests as separate
import requests
from google.api_core.retry import Retry
from google.cloud.storage import exceptions
from google.cloud.storage.retry import DEFAULT_RETRY
from google.resumable_media import common

from surroundings import UNIT, Broker, calls, equal, fault, md5, noise, raises

FAMILIES = (separate, current)
FAILURES = ((separate, common.InvalidResponse), (current, exceptions.InvalidResponse))

# A session of the XML API answers its last request without a word: the library has no digest to compare with, and fails
# if it is to compare.
CHECKSUMS = (None,) if os.environ["SESSIONS"] == "xml" else ("crc32c", "md5")


def open_upload(family, uri, data, chunk=UNIT, checksum=CHECKSUMS[0], total=True):
    """The library's upload on a session that somebody else has initiated."""
    upload = family.ResumableUpload(uri, chunk, checksum=checksum)
    # The library has no other way to take up a session.
    upload._resumable_url = uri
    upload._stream = io.BytesIO(data)
    upload._content_type = "video/mp4"
    upload._total_bytes = len(data) if total else None
    # As patient as ever, but quicker.
    if isinstance(upload._retry_strategy, Retry):
        upload._retry_strategy = DEFAULT_RETRY.with_delay(initial=0.02, maximum=0.1)
    else:
        upload._retry_strategy = common.RetryStrategy(max_sleep=0.1, initial_delay=0.02)
    return upload


def send(upload, transport):
    """Sends what is left, and gives the number of requests."""
    requests_sent = 0
    while not upload.finished:
        upload.transmit_next_chunk(transport)
        requests_sent += 1
    return requests_sent


def chunked():
    """Chunk after chunk, with the digest that the library compares."""
    broker, transport = Broker(), requests.Session()
    for family in FAMILIES:
        for checksum in CHECKSUMS:
            data = noise(4 * UNIT + 5)
            created = broker.create(data)
            upload = open_upload(family, created["transfer"]["uri"], data, checksum=checksum)
            equal(send(upload, transport), 5, "chunks")
            broker.completed(created, data)


def chunked_as_advised():
    """With the chunk size that the broker advises."""
    broker, transport = Broker(), requests.Session()
    for family in FAMILIES:
        data = noise(2 * UNIT)
        created = broker.create(data)
        advice = created["transfer"]
        equal(advice["chunk_bytes"] % advice["chunk_multiple_bytes"], 0)
        upload = open_upload(family, advice["uri"], data, chunk=advice["chunk_bytes"])
        equal(send(upload, transport), 1, "chunks")
        broker.completed(created, data)


def unknown_total():
    """A stream whose end the library only sees when it is there."""
    broker, transport = Broker(), requests.Session()
    for family in FAMILIES:
        for size in (3 * UNIT + 1, 2 * UNIT - 1, UNIT - 1):
            data = noise(size)
            created = broker.create(data)
            send(open_upload(family, created["transfer"]["uri"], data, total=False), transport)
            broker.completed(created, data)


def one_request():
    """Everything in one POST to the session, without a range."""
    broker, transport = Broker(), requests.Session()
    for family in FAMILIES:
        data = noise(UNIT + 1)
        created = broker.create(data)
        upload = family.SimpleUpload(created["transfer"]["uri"])
        equal(upload.transmit(transport, data, "video/mp4").status_code, 200)
        broker.completed(created, data)


def resumed():
    """Another process takes the session up where storage says that the first one left it."""
    broker, transport = Broker(), requests.Session()
    for family in FAMILIES:
        data = noise(4 * UNIT + 7)
        created = broker.create(data)
        uri = created["transfer"]["uri"]
        first = open_upload(family, uri, data)
        first.transmit_next_chunk(transport)
        first.transmit_next_chunk(transport)

        second = open_upload(family, uri, data, checksum=None)
        second._make_invalid()
        second.recover(transport)
        equal(second.bytes_uploaded, 2 * UNIT, "what the session has")
        equal(send(second, transport), 3, "the chunks that were missing")
        broker.completed(created, data)


def recovered():
    """Errors and cut connections amid chunks, which the library gets over by itself."""
    broker, transport = Broker(), requests.Session()
    for family in FAMILIES:
        for action in (
            {"kind": "respond", "status": 503},
            {"kind": "respond", "status": 429, "retry_after": 0},
            {"kind": "reset"},
            {"kind": "act_then_reset"},
            {"kind": "persist_then_reset", "bytes": UNIT + 100},
            {"kind": "persist_then_respond", "bytes": UNIT + 100, "reply": {"status": 503}},
        ):
            data = noise(5 * UNIT)
            created = broker.create(data)
            upload = open_upload(family, created["transfer"]["uri"], data, chunk=2 * UNIT)
            with fault(operation="chunk", skip=1, action=action):
                send(upload, transport)
            broker.completed(created, data)


def recovered_by_hand():
    """A 308 without a range makes the library's upload invalid; `recover` repairs it."""
    broker, transport = Broker(), requests.Session()
    for family, failure in FAILURES:
        data = noise(3 * UNIT)
        created = broker.create(data)
        upload = open_upload(family, created["transfer"]["uri"], data)
        with fault(operation="chunk", action={"kind": "omit_range"}), raises(failure, "range"):
            upload.transmit_next_chunk(transport)
        assert upload.invalid
        upload.recover(transport)
        equal(upload.bytes_uploaded, UNIT)
        send(upload, transport)
        broker.completed(created, data)


def refused():
    """What storage refuses is an error of the library, and completes nothing."""
    broker, transport = Broker(), requests.Session()
    for family, failure in FAILURES:
        data = noise(2 * UNIT)
        created = broker.create(data, md5=md5(noise(2 * UNIT, seed=2)))
        with raises(failure, "400"):
            send(open_upload(family, created["transfer"]["uri"], data), transport)
        assert broker.complete(created).json().get("state") != "completed"

        created = broker.create(data)
        with raises(failure, "400"):
            send(open_upload(family, created["transfer"]["uri"], data + b"more"), transport)
        assert broker.complete(created).json().get("state") != "completed"


def wrong_digest_on_the_wire():
    """The digest that google.cloud.storage sends with the last chunk is looked at."""
    broker, transport = Broker(), requests.Session()
    data = noise(2 * UNIT)
    created = broker.create(data)
    upload = open_upload(current, created["transfer"]["uri"], data)
    upload.transmit_next_chunk(transport)
    upload._checksum_object.update(b"what was never sent")
    with raises(exceptions.InvalidResponse, "400"):
        upload.transmit_next_chunk(transport)
    assert broker.complete(created).json().get("state") != "completed"


def renewed():
    """After its session was lost, an upload goes on from its beginning in another."""
    broker, transport = Broker(), requests.Session()
    for family, failure in FAILURES:
        data = noise(3 * UNIT)
        created = broker.create(data)
        upload = open_upload(family, created["transfer"]["uri"], data)
        upload.transmit_next_chunk(transport)
        with fault(operation="chunk", action={"kind": "kill_session"}), raises(failure, "410"):
            upload.transmit_next_chunk(transport)
        equal(broker.complete(created).json()["code"], "session-lost")
        again = broker.renew(created)
        assert again["transfer"]["uri"] != created["transfer"]["uri"]
        send(open_upload(family, again["transfer"]["uri"], data), transport)
        broker.completed(created, data)


def unknown_size():
    """Nobody knows the size before the end, the broker included."""
    broker, transport = Broker(), requests.Session()
    for family in FAMILIES:
        for size in (0, 1, 2 * UNIT, 2 * UNIT + 1):
            data = noise(size)
            created = broker.create(None)
            assert "size_bytes" not in created
            send(open_upload(family, created["transfer"]["uri"], data, total=False), transport)
            broker.completed(created, data)


def straight_to_storage():
    """No byte went any other way: the emulator saw exactly those of the object."""
    broker, transport = Broker(), requests.Session()
    data = noise(3 * UNIT + 9)
    created = broker.create(data)
    send(open_upload(separate, created["transfer"]["uri"], data), transport)
    broker.completed(created, data)
    chunks = calls(operation="chunk", object=created["object"])
    equal(sum(call["received"] for call in chunks), len(data), "bytes at storage")
    equal([call["status"] for call in chunks], [308, 308, 308, 200])
