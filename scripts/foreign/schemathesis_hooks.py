"""What Schemathesis has to know beyond the description: lines of JSON, that a query belongs to a raw body, and that
nobody's server is to be bothered."""

import json
from urllib.parse import urlsplit

import schemathesis

# Port 9 (discard): callbacks of made-up tasks end here, not at hosts that may exist.
NOWHERE = "127.0.0.1:9"


@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    """A stream of lines is sent as the text that it is."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode(errors="surrogatepass")


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Leads every callback to nowhere, and sends a good task as JSON without a query."""
    if case.path == "/v1/task/submit" and case.media_type == "application/json":
        # No schema can say that these parameters are for raw bodies; with JSON everything stands in the body.
        if case.meta is not None and case.meta.generation.mode.is_positive:
            case.query = {}
    tasks = case.body if isinstance(case.body, list) else [case.body]
    for task in [*tasks, case.query]:
        if isinstance(task, dict) and isinstance(task.get("callback"), str):
            task["callback"] = to_nowhere(task["callback"])


def to_nowhere(url):
    """The same URL with another host; what is none stays as it is, to be refused."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
            return url
        return parts._replace(netloc=NOWHERE).geturl()
    except ValueError:
        return url
