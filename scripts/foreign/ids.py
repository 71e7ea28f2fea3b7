"""Makes the tasks that Schemathesis asks for, and writes their ids into files, one in quotes on each line.

    python ids.py HOST:PORT FOLDER
"""

import sys
from pathlib import Path

from asking import client, expect, in_seconds, submit

HTTP = client(sys.argv[1])
FOLDER = Path(sys.argv[2])


def ended(status, cancel=False, **task):
    """A task that has ended so."""
    task_id = submit(HTTP, **task)
    if cancel:
        HTTP.post(f"/v1/task/{task_id}/cancel").raise_for_status()
    answer = HTTP.get(f"/v1/task/{task_id}/status?wait=30s")
    expect(answer.json()["status"], status, f"status of {task_id}")
    return task_id


ENDED = [
    ended("success", payload={"n": 1}),
    ended("success", payload_base64="AAEC", content_type="application/octet-stream"),
    ended("cancelled", cancel=True, run_at=in_seconds(3600)),
    ended("expired", run_at=in_seconds(3600), timeout_seconds=1),
]
WAITING = submit(HTTP, run_at=in_seconds(3600))
for name, ids in (("ended.txt", ENDED), ("tasks.txt", [*ENDED, WAITING])):
    (FOLDER / name).write_text("".join(f'"{task_id}"\n' for task_id in ids))
