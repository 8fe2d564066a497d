"""Who has events in Gradio's queue, and which streams of results exist.

Gradio 6.31 limits the queue as a whole, not for each client; it keeps the undelivered messages of
2,000 sessions; and it answers a request for a stream that does not exist only after it has sent the
headers. `queue` is its `Queue`. This can go once Gradio has limits for each client.
"""

from __future__ import annotations

from typing import Any


def queue_of(blocks: Any) -> Any:
    """The app's queue."""
    return blocks._queue


def senders(queue: Any) -> list[tuple[str | None, str | None]]:
    """Address and session of each event that waits or runs."""
    events = [e for one in queue.event_queue_per_concurrency_id.values() for e in one.queue]
    events += [event for job in queue.active_jobs if job for event in job]
    return [(getattr(e.request.client, "host", None), e.session_hash) for e in events]


def has_messages(queue: Any, session: str | None) -> bool:
    """Whether there is a stream of messages for the session."""
    return session in queue.pending_messages_per_session


def has_event(queue: Any, event: str) -> bool:
    """Whether an event waits, runs, or has undelivered messages."""
    return event in queue.event_ids_to_events or any(
        event in events for events in queue.pending_event_ids_session.values()
    )


def forget_messages(queue: Any, session: str) -> bool:
    """Drop a session's undelivered messages, pictures included. Returns False, and drops nothing,
    while one of its events is still running."""
    ids = queue.pending_event_ids_session.get(session, ())
    if any(event in queue.event_ids_to_events for event in list(ids)):
        return False
    queue.pending_messages_per_session.pop(session, None)
    queue.pending_event_ids_session.pop(session, None)
    return True
