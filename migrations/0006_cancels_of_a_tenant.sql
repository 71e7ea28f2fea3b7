-- How many requests to cancel a tenant has open, which bounds them at the front door.
-- Locks: SHARE on task_cancels for as long as its few rows take to be indexed.

CREATE INDEX task_cancels_tenant ON task_cancels (tenant, requested_at);
