"""The front door's gRPC, asked by grpcio with stubs that grpc_tools makes from the .proto files.

    python grpc_client.py HOST:PORT FOLDER-OF-PROTO-FILES
"""

import importlib
import json
import sys
import tempfile
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_tools import protoc

from asking import PATIENCE, expect, run, settled

DOOR, PROTOS = sys.argv[1], Path(sys.argv[2])
SERVICE = "millrace.v1.Tasks"


def stubs(folder):
    """Compiles the .proto files into a folder and imports what came out."""
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(file.relative_to(PROTOS)) for file in PROTOS.rglob("*.proto"))
    flags = [f"-I{PROTOS}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *flags, *files]) == 0, "protoc refuses the .proto files"
    sys.path.insert(0, folder)
    return importlib.import_module("millrace.v1.tasks_pb2"), importlib.import_module("millrace.v1.tasks_pb2_grpc")


FOLDER = tempfile.TemporaryDirectory()
pb, pb_grpc = stubs(FOLDER.name)
CHANNEL = grpc.insecure_channel(DOOR)
TASKS = pb_grpc.TasksStub(CHANNEL)


def task(**fields):
    """A task with a small payload, unless the fields say otherwise."""
    return pb.SubmitRequest(**{"type": "foreign", "payload": b'{"n": 1}', **fields})


def submit(**fields):
    """Hands over a task and returns its id."""
    return TASKS.Submit(task(**fields), timeout=PATIENCE).task_id


def wait(task_id):
    """How the task ended."""
    return TASKS.Wait(pb.WaitRequest(task_id=task_id), timeout=PATIENCE)


def status(state):
    """The status in words."""
    return pb.Status.Name(state.status)


def refused(call, code, problem=None):
    """The call ends with this code, and its metadata name this problem."""
    try:
        answer = call()
    except grpc.RpcError as error:
        metadata = dict(error.trailing_metadata() or ())
        said = f"{error.code().name} ({error.details()}), metadata {metadata}"
        assert error.code() == code, f"expected {code.name}, found {said}"
        assert problem is None or metadata.get("millrace-problem") == problem, f"expected {problem}, found {said}"
        return metadata
    raise AssertionError(f"expected {code.name}, found an answer: {answer}")


def in_seconds(seconds):
    """So many seconds from now; the stubs take a datetime as a Timestamp."""
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


def health():
    """health: the service is serving, an unknown one is not found"""
    stub = health_pb2_grpc.HealthStub(CHANNEL)
    for service in ("", SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        expect(answer.status, health_pb2.HealthCheckResponse.SERVING, f"health of {service!r}")
    nobody = health_pb2.HealthCheckRequest(service="nobody")
    refused(lambda: stub.Check(nobody, timeout=PATIENCE), grpc.StatusCode.NOT_FOUND)


def reflection():
    """reflection: lists the services and describes theirs"""
    # grpcio-reflection has the messages of v1alpha only; those of v1 are the same on the wire.
    ask = CHANNEL.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    questions = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    services, files = ask(iter(questions), timeout=PATIENCE)
    names = {service.name for service in services.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names, f"services: {names}"
    described = set()
    for text in files.file_descriptor_response.file_descriptor_proto:
        file = descriptor_pb2.FileDescriptorProto.FromString(text)
        described |= {method.name for service in file.service for method in service.method}
    wanted = {method.name for method in pb.DESCRIPTOR.services_by_name["Tasks"].methods}
    assert wanted <= described, f"methods: {described}"
    # The protocol has a message for what is not found; tonic ends the stream instead. The code is the same.
    nobody = reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.such.Symbol")
    refused(lambda: list(ask(iter([nobody]), timeout=PATIENCE)), grpc.StatusCode.NOT_FOUND)


def submit_and_wait():
    """Submit, Wait, Get: the result is the payload, byte for byte"""
    for payload, content_type in ((b'{"b": 1.0 , "a":"\\u00e9"}', ""), (bytes(range(256)), "application/octet-stream")):
        task_id = submit(payload=payload, content_type=content_type)
        expect(str(uuid.UUID(task_id)), task_id, "the id's form")
        expect(uuid.UUID(task_id).version, 7, "the id's version")
        for state in (wait(task_id), TASKS.Get(pb.GetRequest(task_id=task_id), timeout=PATIENCE)):
            expect(status(state), "STATUS_SUCCESS", "status")
            expect(state.WhichOneof("outcome"), "result", "outcome")
            expect(state.result.body, payload, "result")
            expect(state.result.content_type, content_type or "application/json", "content type")
            assert state.submitted_at.seconds > 0 and state.completed_at.seconds > 0, "both times are told"


def idempotency():
    """Submit with an idempotency key: the same id again, ALREADY_EXISTS for another payload"""
    name = f"foreign-{uuid.uuid4()}"
    first = submit(idempotency_key=name)
    expect(submit(idempotency_key=name), first, "id of the repeat")
    other = task(idempotency_key=name, payload=b"2")
    refused(
        lambda: TASKS.Submit(other, timeout=PATIENCE), grpc.StatusCode.ALREADY_EXISTS, "idempotency-key-reused"
    )


def refusals():
    """Submit of what cannot be a task: INVALID_ARGUMENT, with the problem and its place"""
    wrong = {
        "no type": task(type=""),
        "long type": task(type="x" * 256),
        "no JSON": task(payload=b"{"),
        "deep JSON": task(payload=b"[" * 200 + b"]" * 200),
        "deadline": task(deadline=in_seconds(-60)),
        "timeout": task(timeout=timedelta(seconds=-1)),
        "callback": task(callback="ftp://example.com"),
        "content type": task(content_type="x" * 1000),
        "long name": task(idempotency_key="x" * 256),
    }
    for what, request in wrong.items():
        try:
            metadata = refused(
                lambda: TASKS.Submit(request, timeout=PATIENCE), grpc.StatusCode.INVALID_ARGUMENT, "bad-request"
            )
            assert "millrace-at" in metadata, f"no place in {metadata}"
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from error


def too_large():
    """Submit of what is too large: INVALID_ARGUMENT, beyond an event as beyond a message"""
    for megabytes in (1.5, 3):
        payload = b'"' + b"x" * int(megabytes * 1_000_000) + b'"'
        try:
            refused(
                lambda: TASKS.Submit(task(payload=payload), timeout=PATIENCE),
                grpc.StatusCode.INVALID_ARGUMENT,
                "too-large",
            )
        except AssertionError as error:
            raise AssertionError(f"{megabytes} MB: {error}") from error


def unknown():
    """Get, Wait, Cancel of an unknown id: NOT_FOUND; Watch tells of it by a problem, and refuses what is no id"""
    # Born a minute ago; certainly nobody's once every partition has passed that time.
    born = int((time.time() - 60) * 1000)
    stranger = str(uuid.UUID(int=(born << 80) | (7 << 76) | (2 << 62) | (uuid.uuid4().int & ((1 << 62) - 1))))

    def code():
        try:
            return TASKS.Get(pb.GetRequest(task_id=stranger), timeout=PATIENCE).status
        except grpc.RpcError as error:
            return error.code()

    expect(settled(code, lambda found: found == grpc.StatusCode.NOT_FOUND), grpc.StatusCode.NOT_FOUND, "unknown id")
    for task_id in (stranger, "no-id", ""):
        for call, request in (
            (TASKS.Get, pb.GetRequest(task_id=task_id)),
            (TASKS.Wait, pb.WaitRequest(task_id=task_id)),
            (TASKS.Cancel, pb.CancelRequest(task_id=task_id)),
        ):
            refused(lambda: call(request, timeout=PATIENCE), grpc.StatusCode.NOT_FOUND, "not-found")
    told = list(TASKS.Watch(pb.WatchRequest(task_ids=[stranger]), timeout=PATIENCE))
    expect([(state.task_id, state.status, state.problem.kind) for state in told], [(stranger, 0, "not-found")], "Watch")
    for watch in (pb.WatchRequest(), pb.WatchRequest(task_ids=[stranger, "no-id"]), pb.WatchRequest(task_ids=[""])):
        refused(lambda: list(TASKS.Watch(watch, timeout=PATIENCE)), grpc.StatusCode.INVALID_ARGUMENT, "bad-request")


def waits_no_longer():
    """Wait ends in time with a state that is no end, by its own timeout as by the call's"""
    task_id = submit(run_at=in_seconds(3600))
    own = pb.WaitRequest(task_id=task_id, timeout=timedelta(seconds=0.5))
    for request, timeout in ((own, PATIENCE), (pb.WaitRequest(task_id=task_id), 1.5)):
        began = time.monotonic()
        state = TASKS.Wait(request, timeout=timeout)
        expect(status(state), "STATUS_ACCEPTED", "status")
        assert 0.3 < time.monotonic() - began < 5, f"waited {time.monotonic() - began:.1f} s"
    TASKS.Cancel(pb.CancelRequest(task_id=task_id), timeout=PATIENCE)


def watch_and_cancel():
    """Watch tells of the Cancel and ends; Cancel again changes nothing"""
    task_id = submit(run_at=in_seconds(3600))
    seen = []
    begun = threading.Event()

    def follow():
        for state in TASKS.Watch(pb.WatchRequest(task_ids=[task_id]), timeout=PATIENCE):
            seen.append(status(state))
            begun.set()

    watching = threading.Thread(target=follow, daemon=True)
    watching.start()
    assert begun.wait(PATIENCE), "Watch says nothing"
    state = TASKS.Cancel(pb.CancelRequest(task_id=task_id), timeout=PATIENCE)
    assert state.cancel_requested or status(state) == "STATUS_CANCELLED", f"after Cancel: {state}"
    state = wait(task_id)
    expect(status(state), "STATUS_CANCELLED", "status")
    expect(state.WhichOneof("outcome"), "problem", "outcome")
    expect(state.problem.kind, "task-cancelled", "problem")
    watching.join(PATIENCE)
    assert not watching.is_alive(), f"Watch goes on after the end: {seen}"
    expect((seen[0], seen[-1]), ("STATUS_ACCEPTED", "STATUS_CANCELLED"), "first and last state watched")
    again = TASKS.Cancel(pb.CancelRequest(task_id=task_id), timeout=PATIENCE)
    expect(status(again), "STATUS_CANCELLED", "status after another Cancel")


def expires():
    """A task that is not done in time expires: by its own timeout, and by the call's where that is asked for"""
    late = in_seconds(3600)
    by_itself = submit(run_at=late, timeout=timedelta(seconds=2))
    by_call = TASKS.Submit(task(run_at=late, deadline_from_call=True), timeout=2).task_id
    for task_id in (by_itself, by_call):
        state = wait(task_id)
        expect(status(state), "STATUS_EXPIRED", "status")
        expect(state.problem.kind, "task-expired", "problem")


def stream():
    """SubmitStream answers each in order, good and bad; Watch follows all to their ends"""
    count, wrong = 200, {0, 77, 199}
    requests = (
        task(payload=b"{" if index in wrong else json.dumps({"n": index}).encode()) for index in range(count)
    )
    answers = list(TASKS.SubmitStream(requests, timeout=PATIENCE))
    expect([answer.index for answer in answers], list(range(count)), "indexes")
    refused_ones = {answer.index for answer in answers if answer.WhichOneof("answer") == "problem"}
    expect(refused_ones, wrong, "refused ones")
    expect({answers[index].problem.kind for index in wrong}, {"bad-request"}, "problem")
    ids = {answer.task_id: answer.index for answer in answers if answer.index not in wrong}
    expect(len(ids), count - len(wrong), "different ids")
    ends = {}
    for state in TASKS.Watch(pb.WatchRequest(task_ids=list(ids)), timeout=PATIENCE):
        if state.HasField("completed_at"):
            ends[state.task_id] = (status(state), json.loads(state.result.body))
    expect(ends, {task_id: ("STATUS_SUCCESS", {"n": index}) for task_id, index in ids.items()}, "ends")


def stream_while_open():
    """SubmitStream answers the first task before the second is sent"""
    first_answered = threading.Event()

    def requests():
        yield task()
        assert first_answered.wait(PATIENCE), "no answer to the first task while the stream is open"
        yield task()

    answers = TASKS.SubmitStream(requests(), timeout=PATIENCE)
    next(answers)
    first_answered.set()
    expect(len(list(answers)), 1, "answers after the first")


def no_such_method():
    """A method that is not there: UNIMPLEMENTED, also of a service that is not there"""
    for method in (f"/{SERVICE}/Juggle", "/nobody.Service/Do"):
        call = CHANNEL.unary_unary(method)
        refused(lambda: call(b"", timeout=PATIENCE), grpc.StatusCode.UNIMPLEMENTED)


if __name__ == "__main__":
    run(
        [
            health,
            reflection,
            submit_and_wait,
            idempotency,
            refusals,
            too_large,
            unknown,
            waits_no_longer,
            watch_and_cancel,
            expires,
            stream,
            stream_while_open,
            no_such_method,
        ]
    )
