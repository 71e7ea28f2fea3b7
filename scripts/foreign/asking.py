"""What the programs here have in common: running their checks, and the plainest questions to the front door."""

import sys
import time
import traceback
from datetime import datetime, timedelta, timezone

import httpx

PATIENCE = 30.0


def run(checks):
    """Runs all checks, says how each ended, and ends the program: with 1 when any failed."""
    failed = 0
    for check in checks:
        what = (check.__doc__ or check.__name__).strip()
        try:
            check()
        except Exception as error:
            failed += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = str(error) or place.line
            print(f"  FAILED  {what}\n          {type(error).__name__} in line {place.lineno}: {said}", flush=True)
        else:
            print(f"  ok      {what}", flush=True)
    sys.exit(1 if failed else 0)


def expect(found, wanted, of):
    """Two values are the same."""
    assert found == wanted, f"{of}: expected {wanted!r}, found {found!r}"


def client(door):
    """A client of HTTP for the front door at this address."""
    return httpx.Client(base_url=f"http://{door}", timeout=PATIENCE * 2)


def submit(http, **task):
    """Hands over a task and returns its id."""
    answer = http.post("/v1/task/submit", json={"type": "foreign", **task})
    assert answer.status_code == 202, f"submit was answered {answer.status_code}: {answer.text}"
    return answer.json()["task_id"]


def in_seconds(seconds):
    """So many seconds from now, as RFC 3339 writes it."""
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()


def settled(question, wanted, patience=PATIENCE):
    """Asks again and again until the answer is as wanted; returns the last answer."""
    until = time.monotonic() + patience
    while True:
        answer = question()
        if wanted(answer) or time.monotonic() > until:
            return answer
        time.sleep(0.2)
