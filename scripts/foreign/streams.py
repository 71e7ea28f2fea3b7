"""Tasks watched by clients of others: the WebSocket by websockets, the server-sent events by httpx-sse.

    python streams.py HOST:PORT
"""

import json
import sys
import uuid

from httpx_sse import connect_sse
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from asking import PATIENCE, client, expect, in_seconds, run, submit

DOOR = sys.argv[1]
HTTP = client(DOOR)
# Born in 1970: no day of then is kept.
NOBODYS = str(uuid.UUID(int=(7 << 76) | (2 << 62) | 1))


def socket(task_id):
    """A WebSocket that follows a task."""
    return connect(f"ws://{DOOR}/v1/task/{task_id}/ws", open_timeout=PATIENCE, close_timeout=PATIENCE)


def hear(connection):
    """The next message."""
    return json.loads(connection.recv(timeout=PATIENCE))


def hear_all(connection):
    """All messages until the other side closes, which it has to do in good order."""
    messages = [json.loads(text) for text in connection]
    # 1005 is a close frame without a code.
    assert connection.close_code in (1000, 1005), f"closed with {connection.close_code}"
    return messages


def events(path, last=None):
    """The events of a stream until it ends."""
    headers = {} if last is None else {"last-event-id": last}
    with connect_sse(HTTP, "GET", path, headers=headers) as source:
        expect(source.response.status_code, 200, f"status of {path}")
        return list(source.iter_sse())


def websocket_to_the_end():
    """WebSocket: from accepted to the end, then it is closed"""
    task_id = submit(HTTP, payload=1, run_at=in_seconds(3))
    with socket(task_id) as connection:
        messages = hear_all(connection)
    expect({message["task_id"] for message in messages}, {task_id}, "tasks")
    expect((messages[0]["event"], messages[0]["status"]), ("status", "accepted"), "first message")
    expect((messages[-1]["event"], messages[-1]["status"]), ("end", "success"), "last message")
    expect([message["event"] for message in messages].count("end"), 1, "ends")


def websocket_subscribes():
    """WebSocket: more tasks on the same connection, among them one that nobody has"""
    slow = submit(HTTP, payload=1, run_at=in_seconds(4))
    quick = [submit(HTTP, payload=index) for index in range(3)]
    with socket(slow) as connection:
        connection.send(json.dumps({"action": "subscribe", "ids": [*quick, NOBODYS]}))
        messages = hear_all(connection)
    ends = sorted(message["task_id"] for message in messages if message["event"] == "end")
    expect(ends, sorted([slow, *quick]), "ends")
    errors = [message["task_id"] for message in messages if message["event"] == "error"]
    expect(errors, [NOBODYS], "errors")


def websocket_misused():
    """WebSocket: what is no message of the protocol is answered by an error, and the task is followed on"""
    task_id = submit(HTTP, payload=1, run_at=in_seconds(4))
    with socket(task_id) as connection:
        expect(hear(connection)["event"], "status", "first message")
        for nonsense in ("{", '{"action": "dance"}', '{"action": "subscribe", "ids": ["no-id"]}'):
            connection.send(nonsense)
            message = hear(connection)
            expect(message["event"], "error", f"answer to {nonsense}")
            expect(message["error"]["type"], "/problems/bad-request", f"problem of {nonsense}")
        connection.ping().wait(PATIENCE)
        expect(hear_all(connection)[-1]["event"], "end", "last message")


def websocket_refused():
    """WebSocket: an unknown id is refused with 404, a plain GET with 400, both as problems"""
    try:
        with socket("no-id"):
            raise AssertionError("an unknown task is followed")
    except InvalidStatus as refused:
        expect(refused.response.status_code, 404, "status")
        expect(json.loads(refused.response.body)["type"], "/problems/not-found", "problem")
    answer = HTTP.get(f"/v1/task/{submit(HTTP)}/ws")
    expect(answer.status_code, 400, "status of a plain GET")
    expect(answer.headers["content-type"], "application/problem+json", "its content type")


def sse_to_the_end():
    """SSE: from accepted to the end, each event with an id; who comes back with the last one gets 204"""
    task_id = submit(HTTP, payload=1, run_at=in_seconds(3))
    path = f"/v1/task/{task_id}/events"
    heard = events(path)
    first, last = json.loads(heard[0].data), json.loads(heard[-1].data)
    expect((heard[0].event, first["status"]), ("status", "accepted"), "first event")
    expect((heard[-1].event, last["status"]), ("end", "success"), "last event")
    assert all(event.id for event in heard), f"an event has no id: {heard}"
    answer = HTTP.get(path, headers={"last-event-id": heard[-1].id})
    expect((answer.status_code, answer.content), (204, b""), "answer to who knows the end")
    again = events(path)
    expect([(event.event, event.id) for event in again], [("end", heard[-1].id)], "events of an ended task")


def sse_resumed():
    """SSE: a stream that broke is taken up by Last-Event-ID, without what was told before"""
    task_id = submit(HTTP, payload=1, run_at=in_seconds(5))
    path = f"/v1/task/{task_id}/events"
    known = []
    with connect_sse(HTTP, "GET", path) as source:
        for event in source.iter_sse():
            known.append(event)
            # "It waits for its time" is the last that is told before the end.
            if json.loads(event.data).get("due_at"):
                break
    expect({event.event for event in known}, {"status"}, "events before it broke")
    rest = events(path, last=known[-1].id)
    told_twice = {event.id for event in rest} & {event.id for event in known}
    expect(told_twice, set(), "events told twice")
    expect(rest[-1].event, "end", "last event")


def sse_of_many():
    """SSE of many tasks: an end for each; unknown ids are told as errors, none at all is refused"""
    ids = [submit(HTTP, payload=index, run_at=in_seconds(index % 3)) for index in range(5)]
    heard = events(f"/v1/events?ids={','.join(ids)}")
    ends = sorted(json.loads(event.data)["task_id"] for event in heard if event.event == "end")
    expect(ends, sorted(ids), "ends")
    heard = events(f"/v1/events?ids={ids[0]},{NOBODYS}")
    kinds = sorted((event.event, json.loads(event.data)["task_id"]) for event in heard)
    expect(kinds, [("end", ids[0]), ("error", NOBODYS)], "events")
    for query, status in (("ids=", 400), ("ids=no-id", 400), ("", 400), (f"ids={ids[0]}&x=1", 400)):
        answer = HTTP.get(f"/v1/events?{query}")
        expect(answer.status_code, status, f"answer to ?{query}")
    expect(HTTP.get("/v1/task/no-id/events").status_code, 404, "events of an unknown task")


if __name__ == "__main__":
    run(
        [
            websocket_to_the_end,
            websocket_subscribes,
            websocket_misused,
            websocket_refused,
            sse_to_the_end,
            sse_resumed,
            sse_of_many,
        ]
    )
