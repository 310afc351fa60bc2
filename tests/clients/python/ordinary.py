"""The library's own uploads and downloads against the emulator, as other people's tests would do them."""

import io
import os
import tempfile

import requests
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage import transfer_manager
from google.cloud.storage._media.requests import ResumableUpload
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2.credentials import Credentials

from surroundings import BUCKET, UNIT, crc32c, equal, fault, md5, noise, raises

QUICK = DEFAULT_RETRY.with_delay(initial=0.02, maximum=0.1)


def client():
    """The library finds the emulator by STORAGE_EMULATOR_HOST."""
    if os.environ["CREDENTIALS"] == "anonymous":
        return storage.Client(project="test", credentials=AnonymousCredentials())
    return storage.Client(project="test", credentials=Credentials("any token"))


def bucket():
    return client().bucket(BUCKET)


def buckets():
    found = client().get_bucket(BUCKET)
    equal((found.location, found.location_type), ("EUROPE-WEST1", "region"))
    assert client().bucket(BUCKET).exists()
    assert client().lookup_bucket("nowhere-to-be-found") is None
    with raises(exceptions.NotFound):
        client().get_bucket("nowhere-to-be-found")
    made = client().create_bucket("made-in-python", location="us-east1")
    equal(client().get_bucket(made.name).location, "US-EAST1")
    with raises(exceptions.Conflict):
        client().create_bucket("made-in-python")
    wanted = ["storage.objects.create", "storage.objects.get"]
    equal(made.test_iam_permissions(wanted), wanted)


def multipart():
    """Small uploads are one request with the resource and the bytes."""
    for checksum in ("auto", "md5", "crc32c", None):
        for size in (0, 1, 100_000):
            data, blob = noise(size), bucket().blob(f"python/multipart/{checksum}/{size}")
            blob.metadata = {"album": "summer"}
            blob.cache_control = "private"
            blob.upload_from_string(data, content_type="image/png", checksum=checksum)
            found = (blob.size, blob.md5_hash, blob.crc32c, blob.content_type)
            equal(found, (size, md5(data), crc32c(data), "image/png"))
            equal((blob.metadata, blob.cache_control, blob.metageneration), ({"album": "summer"}, "private", 1))
            equal(blob.download_as_bytes(), data)


def resumable():
    """Large ones are sessions of the library's own."""
    for checksum in ("auto", "md5", "crc32c", None):
        for size in (1, UNIT, 4 * UNIT, 4 * UNIT + 3):
            data = noise(size)
            blob = bucket().blob(f"python/resumable/{checksum}/{size}", chunk_size=2 * UNIT)
            blob.metadata = {"album": "summer"}
            blob.upload_from_file(io.BytesIO(data), content_type="video/mp4", checksum=checksum)
            found = (blob.size, blob.md5_hash, blob.crc32c, blob.content_type)
            equal(found, (size, md5(data), crc32c(data), "video/mp4"))
            equal(blob.metadata, {"album": "summer"})


def streamed():
    """A file-like object whose size nobody knows beforehand."""
    data, blob = noise(5 * UNIT + 1), bucket().blob("python/streamed")
    with blob.open("wb", chunk_size=UNIT, content_type="video/mp4") as writer:
        for begin in range(0, len(data), 100_000):
            writer.write(data[begin : begin + 100_000])
    with blob.open("rb", chunk_size=UNIT) as reader:
        equal(reader.read(10), data[:10])
        reader.seek(3 * UNIT)
        equal(reader.read(), data[3 * UNIT :])


def session_by_the_library():
    """A session that the library initiates for somebody else, who has no credentials."""
    data, blob = noise(2 * UNIT + 1), bucket().blob("python/session")
    uri = blob.create_resumable_upload_session(
        content_type="video/mp4", size=len(data), origin="https://app.example.com", if_generation_match=0
    )
    upload = ResumableUpload(uri, UNIT)
    upload._resumable_url, upload._stream = uri, io.BytesIO(data)
    upload._content_type, upload._total_bytes = "video/mp4", len(data)
    transport = requests.Session()
    while not upload.finished:
        answer = upload.transmit_next_chunk(transport)
        equal(answer.headers["access-control-allow-origin"], "https://app.example.com")
    equal(blob.download_as_bytes(), data)


def downloads():
    data, blob = noise(3 * UNIT + 11), bucket().blob("python/down loads/ä+%2F?.bin")
    blob.upload_from_string(data)
    for checksum in ("auto", "md5", "crc32c", None):
        equal(blob.download_as_bytes(checksum=checksum), data)
        with tempfile.TemporaryDirectory() as folder:
            blob.download_to_filename(os.path.join(folder, "copy"), checksum=checksum)
            with open(os.path.join(folder, "copy"), "rb") as copy:
                equal(copy.read(), data)
    for start, end in ((0, 0), (5, 9), (UNIT, None), (None, 99), (len(data) - 1, None)):
        last = len(data) - 1 if end is None else end
        equal(blob.download_as_bytes(start=start, end=end), data[start or 0 : last + 1], f"{start}-{end}")
    # In pieces of a chunk each, and raw.
    chunked = bucket().blob(blob.name, chunk_size=UNIT)
    equal(chunked.download_as_bytes(), data)
    equal(blob.download_as_bytes(raw_download=True), data)
    with raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=len(data))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "copy")
        transfer_manager.download_chunks_concurrently(
            blob, path, chunk_size=UNIT, worker_type=transfer_manager.THREAD, max_workers=3
        )
        with open(path, "rb") as copy:
            equal(copy.read(), data)


def listing():
    for name in ("a/1", "a/2", "a/b/3", "c"):
        bucket().blob(f"python/list/{name}").upload_from_string(name)
    names = [blob.name for blob in bucket().list_blobs(prefix="python/list/", page_size=1)]
    equal(names, [f"python/list/{name}" for name in ("a/1", "a/2", "a/b/3", "c")])
    found = client().list_blobs(BUCKET, prefix="python/list/a/", delimiter="/")
    equal([blob.name for blob in found], ["python/list/a/1", "python/list/a/2"])
    equal(found.prefixes, {"python/list/a/b/"})


def attributes():
    blob = bucket().blob("python/attributes")
    blob.upload_from_string(b"hello", content_type="text/plain")
    blob.metadata = {"keep": "yes", "drop": "soon"}
    blob.cache_control = "no-store"
    blob.patch(if_metageneration_match=1)
    again = bucket().get_blob(blob.name)
    equal((again.metadata, again.cache_control), ({"keep": "yes", "drop": "soon"}, "no-store"))
    equal((again.metageneration, again.content_type, again.etag), (2, "text/plain", blob.etag))
    again.metadata = {"drop": None}
    again.patch()
    again.reload()
    equal((again.metadata, again.metageneration), ({"keep": "yes"}, 3))
    with raises(exceptions.PreconditionFailed):
        blob.patch(if_metageneration_match=1)
    equal(bucket().get_blob("python/never"), None)
    assert not bucket().blob("python/never").exists()


def preconditions():
    blob = bucket().blob("python/preconditions")
    blob.upload_from_string(b"first", if_generation_match=0)
    first = blob.generation
    with raises(exceptions.PreconditionFailed):
        bucket().blob(blob.name).upload_from_string(b"other", if_generation_match=0)
    # A session finds out at its end.
    late = bucket().blob(blob.name, chunk_size=UNIT)
    with raises(exceptions.PreconditionFailed):
        late.upload_from_file(io.BytesIO(noise(2 * UNIT)), if_generation_match=0)
    equal(blob.download_as_bytes(), b"first")
    blob.upload_from_string(b"second", if_generation_match=first)
    assert blob.generation > first
    with raises(exceptions.PreconditionFailed):
        bucket().blob(blob.name).download_as_bytes(if_generation_match=first)
    with raises(exceptions.PreconditionFailed):
        bucket().blob(blob.name).delete(if_generation_match=first)
    with raises(exceptions.NotFound):
        bucket().blob(blob.name, generation=first).download_as_bytes()


def wrong_digests():
    """Digests that the caller sets by hand are storage's to refuse."""
    for name, digest in (("md5_hash", md5(b"other")), ("crc32c", crc32c(b"other"))):
        for size in (5, None):  # A small size given makes it one request, otherwise it is a session.
            blob = bucket().blob(f"python/wrong/{name}/{size}")
            setattr(blob, name, digest)
            with raises(exceptions.BadRequest):
                blob.upload_from_file(io.BytesIO(b"hello"), size=size, checksum=None)
            assert not bucket().blob(blob.name).exists()


def deletion():
    blob = bucket().blob("python/deleted")
    blob.upload_from_string(b"hello")
    blob.delete(if_generation_match=blob.generation)
    with raises(exceptions.NotFound):
        blob.delete()
    with raises(exceptions.NotFound):
        blob.download_as_bytes()


def retries():
    """What may pass is tried again, and then is no failure."""
    data = noise(3 * UNIT)
    for status in (503, 429, 500, 408):
        broken = {"kind": "respond", "status": status, "body": "json"}
        blob = bucket().blob(f"python/retries/{status}")
        with fault(operation="simple", action=broken):
            blob.upload_from_string(data, if_generation_match=0, retry=QUICK)
        with fault(operation="get", action=broken):
            blob.reload(retry=QUICK)
        with fault(operation="download", action=broken):
            equal(blob.download_as_bytes(retry=QUICK), data)
        with fault(operation="list", action=broken):
            equal([found.name for found in bucket().list_blobs(prefix=blob.name, retry=QUICK)], [blob.name])
        with fault(operation="delete", action=broken):
            blob.delete(if_generation_match=blob.generation, retry=QUICK)
        for operation in ("initiate", "chunk"):
            blob = bucket().blob(f"python/retries/{status}/{operation}", chunk_size=UNIT)
            with fault(operation=operation, action=broken):
                blob.upload_from_file(io.BytesIO(data), if_generation_match=0, retry=QUICK)
            equal((blob.size, blob.md5_hash), (len(data), md5(data)))
    with fault(operation="chunk", skip=1, action={"kind": "act_then_reset"}):
        blob = bucket().blob("python/retries/cut", chunk_size=UNIT)
        blob.upload_from_file(io.BytesIO(data), if_generation_match=0, retry=QUICK)
    equal((blob.size, blob.md5_hash), (len(data), md5(data)))
    # Where the caller wants no repetition, the failure is what storage said.
    with raises(exceptions.ServiceUnavailable), fault(operation="get", action={"kind": "respond", "status": 503}):
        blob.reload(retry=None)
