"""The generated Python client, used as an application uses it."""

import os
import uuid

import httpx
from broker import AuthenticatedClient
from broker.api.policies import list_policies
from broker.api.uploads import complete_upload, create_upload, get_upload, list_uploads
from broker.models import Code, CreateUpload, Problem, State, Upload

CONTENT = bytes(300_000)

with AuthenticatedClient(base_url=os.environ["BROKER"], token=os.environ["TOKEN"]) as client:
    order = CreateUpload(policy="videos", filename="holiday.mp4", content_type="video/mp4", size_bytes=len(CONTENT))
    key = str(uuid.uuid4())
    created = create_upload.sync(client=client, body=order, idempotency_key=key)
    assert isinstance(created, Upload) and created.state == State.PENDING, created
    repeated = create_upload.sync(client=client, body=order, idempotency_key=key)
    assert isinstance(repeated, Upload) and repeated.id == created.id, repeated

    early = complete_upload.sync(created.id, client=client)
    assert isinstance(early, Problem) and early.code == Code.NOT_COMPLETE, early

    transfer = created.transfer
    sent = httpx.request(transfer.method, transfer.uri, headers=transfer.headers.to_dict(), content=CONTENT)
    assert sent.status_code == 200, sent
    completed = complete_upload.sync(created.id, client=client)
    assert isinstance(completed, Upload) and completed.state == State.COMPLETED, completed
    assert completed.result.size_bytes == len(CONTENT)

    got = get_upload.sync(created.id, client=client)
    assert isinstance(got, Upload) and got.result.generation == completed.result.generation, got
    listed = list_uploads.sync(client=client, state=State.COMPLETED, limit=200)
    assert any(upload.id == created.id for upload in listed.uploads), listed
    assert [policy.name for policy in list_policies.sync(client=client).policies] == ["videos"]

    unknown = get_upload.sync("0" * 34, client=client)
    assert isinstance(unknown, Problem) and unknown.code == Code.NOT_FOUND, unknown
    large = create_upload.sync(client=client, body=CreateUpload(policy="videos", filename="x.mp4", content_type="video/mp4", size_bytes=2**40))
    assert isinstance(large, Problem) and large.code == Code.POLICY_VIOLATION, large
    assert large.violations[0].limit == "max_size"
print("passed")
