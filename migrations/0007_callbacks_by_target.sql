-- Due callbacks by tenant and target host, so that senders take some of each without reading past all that are due to
-- one that takes no more at present. The host is what lies between the slashes and the path, query or fragment, without
-- the user's name: so no more than that makes it another one. A backslash is a slash to whoever reads the URL later, too.
-- Locks: ACCESS EXCLUSIVE on callbacks while its rows are written anew.

ALTER TABLE callbacks ADD COLUMN target_host text NOT NULL GENERATED ALWAYS AS
    (left(lower(split_part(split_part(translate(target, '?#\', '///'), '/', 3), '@', -1)), 255)) STORED;
CREATE INDEX callbacks_due_by_host ON callbacks (group_id, topic, tenant, target_host, due_at, id) WHERE due_at IS NOT NULL;
