"""Signed callbacks, received by http.server and verified by standardwebhooks.

    FIRST_SECRET=whsec_… SECOND_SECRET=whsec_… python webhook_receiver.py HOST:PORT

Both secrets are of the tenant `default`, and the worker may post to loopback.
"""

import base64
import json
import os
import queue
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

from asking import PATIENCE, client, expect, in_seconds, run, submit

HTTP = client(sys.argv[1])
SECRETS = [Webhook(os.environ[name]) for name in ("FIRST_SECRET", "SECOND_SECRET")]
STRANGER = Webhook("whsec_" + base64.b64encode(b"another secret of 24 bytes").decode())

# What came, and what is answered to it: by path, since the checks share one receiver.
ARRIVED = {}
ANSWERS = {}


class Receiver(BaseHTTPRequestHandler):
    """Keeps what comes, and answers as it was told to, else 204."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        answers = ANSWERS.get(self.path, [])
        status, headers = answers.pop(0) if answers else (204, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", "0")
        self.end_headers()
        ARRIVED[self.path].put((dict(self.headers), body))

    def log_message(self, *_):
        pass


SERVER = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)


def target(path, *answers):
    """A path to post to, with the answers to the first posts there."""
    ARRIVED[path] = queue.Queue()
    ANSWERS[path] = list(answers)
    return f"http://127.0.0.1:{SERVER.server_port}{path}"


def arrival(path):
    """The next post to a path."""
    try:
        return ARRIVED[path].get(timeout=PATIENCE)
    except queue.Empty:
        raise AssertionError(f"nothing was posted to {path} within {PATIENCE:.0f} s") from None


def rejected(webhook, body, headers, what):
    """The library refuses it."""
    try:
        webhook.verify(body, headers)
    except WebhookVerificationError:
        return
    raise AssertionError(f"{what} passes for genuine")


def signed():
    """a success is posted, signed with each secret, and its body tells the result"""
    payload = {"text": "größer als \u4e16\u754c", "n": [1, 2.5, None]}
    task_id = submit(HTTP, payload=payload, callback=target("/signed"))
    headers, body = arrival("/signed")
    for webhook in SECRETS:
        told = webhook.verify(body, headers)
    expect(told["type"], "task.success", "type")
    expect(told["data"]["task_id"], task_id, "task")
    expect(told["data"]["task_type"], "foreign", "task type")
    expect(told["data"]["status"], "success", "status")
    expect(told["data"]["result"], payload, "result")
    names = {name.lower(): value for name, value in headers.items()}
    expect(names["content-type"].split(";")[0], "application/json", "content type")
    assert told["timestamp"] == told["data"]["completed_at"], f"times: {told}"


def tampered():
    """a body, id, time or secret other than the genuine one fails"""
    submit(HTTP, payload={"amount": 10}, callback=target("/tampered"))
    headers, body = arrival("/tampered")
    headers = {name.lower(): value for name, value in headers.items()}
    SECRETS[0].verify(body, headers)
    forged = body.replace(b"10", b"99")
    assert forged != body, f"nothing to forge in {body!r}"
    rejected(SECRETS[0], forged, headers, "another body")
    rejected(SECRETS[0], body + b" ", headers, "a longer body")
    rejected(SECRETS[0], body, {**headers, "webhook-id": headers["webhook-id"] + "0"}, "another id")
    later = str(int(headers["webhook-timestamp"]) + 1)
    rejected(SECRETS[0], body, {**headers, "webhook-timestamp": later}, "another time")
    rejected(STRANGER, body, headers, "the secret of somebody else")


def again():
    """after a 500 and a 503 it comes again, under the same id, genuine each time, and not before Retry-After"""
    submit(HTTP, callback=target("/again", (500, {}), (503, {"retry-after": "2"})))
    posts = [arrival("/again") for _ in range(2)]
    refused = time.monotonic()
    posts.append(arrival("/again"))
    assert time.monotonic() - refused > 1.5, "it came back before the time in Retry-After"
    for headers, body in posts:
        SECRETS[0].verify(body, headers)
    ids = {dict((name.lower(), value) for name, value in headers.items())["webhook-id"] for headers, _ in posts}
    expect(len(ids), 1, "ids of three attempts")


def bytes_and_ends():
    """bytes come as base64, a long result is left out, a cancelled task is told as such"""
    picture = bytes(range(256))
    encoded = base64.b64encode(picture).decode()
    submit(HTTP, payload_base64=encoded, content_type="image/png", callback=target("/bytes"))
    headers, body = arrival("/bytes")
    told = SECRETS[0].verify(body, headers)["data"]
    expect((told["content_type"], base64.b64decode(told["result_base64"])), ("image/png", picture), "bytes")

    submit(HTTP, payload="x" * 30_000, callback=target("/long"))
    headers, body = arrival("/long")
    told = SECRETS[0].verify(body, headers)["data"]
    assert told["result_omitted"] is True and "result" not in told, f"a long result: {told}"
    assert len(body) < 20_000, f"{len(body)} bytes"

    task_id = submit(HTTP, run_at=in_seconds(3600), callback=target("/cancelled"))
    expect(HTTP.post(f"/v1/task/{task_id}/cancel").status_code, 202, "cancel")
    headers, body = arrival("/cancelled")
    told = SECRETS[0].verify(body, headers)
    expect((told["type"], told["data"]["status"]), ("task.cancelled", "cancelled"), "type and status")


def no_redirect():
    """a redirect is not followed"""
    elsewhere = target("/elsewhere")
    submit(HTTP, callback=target("/moved", *[(307, {"location": elsewhere})] * 2))
    arrival("/moved")
    # The next attempt comes to the old place, and nothing ever to the new one.
    arrival("/moved")
    assert ARRIVED["/elsewhere"].empty(), "it went where the redirect leads"


def gone():
    """a target that answers 410 is left alone from then on"""
    url = target("/gone", (410, {}))
    submit(HTTP, callback=url)
    arrival("/gone")
    # What the answer led to is written a moment after it.
    time.sleep(1)
    submit(HTTP, callback=url)
    submit(HTTP, callback=target("/not-gone"))
    arrival("/not-gone")
    time.sleep(1)
    assert ARRIVED["/gone"].empty(), "it was posted to again"


if __name__ == "__main__":
    threading.Thread(target=SERVER.serve_forever, daemon=True).start()
    run([signed, tampered, again, bytes_and_ends, no_redirect, gone])
