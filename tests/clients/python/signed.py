"""URLs that somebody signed: the broker, or the library with the key of a service account."""

import datetime
import io
import os

import google.cloud.storage._media.requests as current
import google.resumable_media.requests as separate
import requests
from google.cloud import storage
from google.oauth2 import service_account

from surroundings import BUCKET, STORAGE, UNIT, Broker, calls, crc32c, equal, md5, noise

FAMILIES = (separate, current)


def sent(transfer, data, **changed):
    """Sends what a signed transfer asks for, with exactly its headers but for what is changed."""
    headers = {**transfer["headers"], **changed}
    return requests.request(transfer["method"], transfer["uri"], headers=headers, data=data)


def simple_of_the_broker():
    """One PUT of everything."""
    broker = Broker()
    for size in (0, 1, 3 * UNIT + 1):
        data = noise(size)
        for declared in ({}, {"md5": md5(data)}, {"crc32c": crc32c(data)}, {"metadata": {"album": "a, b"}}):
            created = broker.create(data, transfer_kind="simple", **declared)
            transfer = created["transfer"]
            equal((transfer["kind"], transfer["method"]), ("simple", "PUT"))
            answer = sent(transfer, data)
            equal(answer.status_code, 200, answer.text)
            broker.completed(created, data)


def simple_is_held_to_its_promise():
    """The URL is good for this upload, and for no other."""
    broker, data = Broker(), noise(1000)
    created = broker.create(data, transfer_kind="simple")
    transfer = created["transfer"]
    elsewhere = {**transfer, "uri": transfer["uri"].replace("/videos/", "/private/")}
    for name, answer, expected in (
        ("too much", sent(transfer, data + b"more"), 400),
        ("too little", sent(transfer, data[:-1]), 400),
        ("another type", sent(transfer, data, **{"content-type": "text/html"}), 403),
        ("another method", sent({**transfer, "method": "DELETE"}, b""), 403),
        ("another object", sent(elsewhere, data), 403),
        ("metadata of one's own", sent(transfer, data, **{"x-goog-meta-admin": "yes"}), 400),
    ):
        equal(answer.status_code, expected, f"{name}: {answer.text}")
    equal(broker.complete(created).json()["code"], "not-complete")
    equal(sent(transfer, data).status_code, 200)
    equal(sent(transfer, data).status_code, 412, "the object is there")
    broker.completed(created, data)


def resumable_of_the_broker():
    """The client initiates by a signed POST, and the library sends the chunks."""
    broker, transport = Broker(), requests.Session()
    for family in FAMILIES:
        data = noise(3 * UNIT + 5)
        created = broker.create(data, transfer_kind="signed_resumable")
        transfer = created["transfer"]
        equal((transfer["kind"], transfer["method"]), ("signed_resumable", "POST"))
        started = sent(transfer, b"")
        equal(started.status_code, 201, started.text)
        # An XML session tells no digest at its end: the library has nothing to compare with.
        upload = family.ResumableUpload(started.headers["location"], UNIT, checksum=None)
        upload._resumable_url, upload._stream = started.headers["location"], io.BytesIO(data)
        upload._content_type, upload._total_bytes = "video/mp4", len(data)
        finish(upload, transport)
        broker.completed(created, data)


def resumable_by_the_library():
    """The library itself initiates by the broker's URL, and takes its headers along with each chunk."""
    broker, transport = Broker(), requests.Session()
    for family in FAMILIES:
        data = noise(3 * UNIT + 5)
        created = broker.create(data, transfer_kind="signed_resumable")
        transfer = created["transfer"]
        upload = family.ResumableUpload(transfer["uri"], UNIT, checksum=None, headers=transfer["headers"])
        upload.initiate(transport, io.BytesIO(data), {}, transfer["headers"]["content-type"])
        finish(upload, transport)
        broker.completed(created, data)
        chunks = calls(operation="chunk", object=created["object"])
        equal([call["status"] for call in chunks], [308, 308, 308, 200])


def finish(upload, transport):
    while not upload.finished:
        upload.transmit_next_chunk(transport)


def account():
    return service_account.Credentials.from_service_account_file(os.environ["SERVICE_ACCOUNT"])


def blob(name):
    return storage.Client(project="test", credentials=account()).bucket(BUCKET).blob(name)


def url(blob, method, **more):
    """A URL of the library's own signature."""
    return blob.generate_signed_url(
        version="v4",
        expiration=datetime.timedelta(minutes=5),
        method=method,
        api_access_endpoint=STORAGE,
        **more,
    )


def signed_by_the_library():
    """Every method, by URLs that the library signs."""
    data = noise(UNIT + 3)
    object_ = blob("python/signed/ä b+c~d%2F//e.mp4")
    headers = {
        "x-goog-if-generation-match": "0",
        "x-goog-content-length-range": f"1,{len(data)}",
        "x-goog-meta-album": "summer  and  autumn",
    }
    put = url(object_, "PUT", content_type="video/mp4", content_md5=md5(data), headers=dict(headers))
    headers.update({"content-type": "video/mp4", "content-md5": md5(data)})
    answer = requests.put(put, data=data, headers=headers)
    equal(answer.status_code, 200, answer.text)
    equal(answer.headers["x-goog-hash"].replace(" ", ""), f"crc32c={crc32c(data)},md5={md5(data)}")
    equal(requests.put(put, data=data, headers=headers).status_code, 412)
    equal(requests.put(put, data=data, headers={**headers, "content-md5": md5(b"")}).status_code, 403)

    get = url(object_, "GET")
    equal(requests.get(get).content, data)
    equal(requests.get(get, headers={"range": "bytes=5-9"}).content, data[5:10])
    head = requests.head(url(object_, "HEAD"))
    equal((head.status_code, head.headers["content-type"]), (200, "video/mp4"))
    equal(head.headers["x-goog-stored-content-length"], str(len(data)))
    equal(requests.delete(get).status_code, 403, "a URL for another method")
    equal(requests.delete(url(object_, "DELETE")).status_code, 204)
    equal(requests.get(get).status_code, 404)


def resumable_signed_by_the_library():
    data, transport = noise(2 * UNIT + 3), requests.Session()
    for number, family in enumerate(FAMILIES):
        object_ = blob(f"python/signed/resumable {number}")
        start = url(object_, "RESUMABLE", content_type="video/mp4")
        headers = {"x-goog-resumable": "start"}
        upload = family.ResumableUpload(start, UNIT, checksum=None, headers=headers)
        upload.initiate(transport, io.BytesIO(data), {}, "video/mp4")
        finish(upload, transport)
        object_.reload()
        equal((object_.size, object_.md5_hash, object_.content_type), (len(data), md5(data), "video/mp4"))


def token_of_the_account():
    """The library gets its token for the key from the emulator, and works with it."""
    object_ = blob("python/with the account's token")
    object_.upload_from_string(b"hello")
    equal(object_.download_as_bytes(), b"hello")
    assert calls(operation="token"), "nobody asked for a token"
