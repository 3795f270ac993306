-- Every statement of the queue: a name, a sentence, the statement. ``:name`` is a parameter.

-- create_meta: Facts about the file itself.
CREATE TABLE meta (name VARCHAR NOT NULL, value VARCHAR NOT NULL);

-- create_payload: The only table with personal data and the only one where rows are erased.
CREATE TABLE payload (task_id UUID NOT NULL, version INTEGER NOT NULL, kind VARCHAR NOT NULL, body VARCHAR NOT NULL);

-- create_event: The append-only log.
CREATE TABLE event (
    seq BIGINT NOT NULL, task_id UUID, move VARCHAR NOT NULL, at_time TIMESTAMP NOT NULL, actor VARCHAR,
    attempt INTEGER, submit_id VARCHAR, confidence DOUBLE, audit_uniform DOUBLE, value DOUBLE, body VARCHAR NOT NULL
);

-- create_task: Where each task stands; derived from the log.
CREATE TABLE task (
    task_id UUID NOT NULL, status VARCHAR NOT NULL, priority TINYINT NOT NULL, confidence DOUBLE, expertise VARCHAR,
    created_at TIMESTAMP NOT NULL, deadline TIMESTAMP, due_at TIMESTAMP, attempt INTEGER NOT NULL, holder VARCHAR,
    lease_until TIMESTAMP, claimed_at TIMESTAMP, came_from VARCHAR, returns INTEGER NOT NULL, level INTEGER NOT NULL,
    overdue BOOLEAN NOT NULL, version INTEGER NOT NULL, answers INTEGER NOT NULL, standing VARCHAR NOT NULL,
    skipped VARCHAR NOT NULL, final INTEGER, outcome VARCHAR, reviewer VARCHAR, reviewed_at TIMESTAMP,
    delivered_at TIMESTAMP, delivered INTEGER NOT NULL, reviews_required INTEGER NOT NULL, consensus VARCHAR NOT NULL, on_deadline VARCHAR NOT NULL,
    escalation VARCHAR NOT NULL, audit BOOLEAN NOT NULL, audit_uniform DOUBLE, audit_probability DOUBLE,
    review_probability DOUBLE, hard BOOLEAN NOT NULL, reasons VARCHAR NOT NULL, model VARCHAR, policy VARCHAR,
    grouping VARCHAR, value DOUBLE, key_hash BIGINT, erased_at TIMESTAMP, seq BIGINT NOT NULL
);

-- create_token: Who may come in over the network; of a secret only its sha256.
CREATE TABLE token (
    hash VARCHAR NOT NULL, id VARCHAR NOT NULL, reviewer VARCHAR NOT NULL, expertise VARCHAR NOT NULL,
    roles VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, expires_at TIMESTAMP NOT NULL, revoked_at TIMESTAMP
);

-- put_token: Let somebody in.
INSERT INTO token (hash, id, reviewer, expertise, roles, created_at, expires_at)
VALUES (:hash, :id, :reviewer, :expertise, :roles, :created_at, :expires_at);

-- tokens: All tokens, without their hashes.
SELECT id, reviewer, expertise, roles, created_at, expires_at, revoked_at FROM token ORDER BY created_at, id;

-- token_of: The token whose secret has a hash.
SELECT id, reviewer, expertise, roles, created_at, expires_at, revoked_at FROM token WHERE hash = :hash;

-- revoke_token: Let nobody in any more with a token.
UPDATE token SET revoked_at = :now WHERE id = :id;

-- put_meta: Remember a fact about the file.
INSERT INTO meta VALUES (:name, :value);

-- set_meta: Change a fact about the file.
UPDATE meta SET value = :value WHERE name = :name;

-- get_meta: Read the facts about the file.
SELECT name, value FROM meta;

-- last_seq: Where the log ends, and its last time.
SELECT coalesce(max(seq), 0), max(at_time) FROM event;

-- unsettled: What the log holds beyond the task table.
SELECT * FROM event WHERE task_id IS NOT NULL AND seq > (SELECT coalesce(max(seq), 0) FROM task) ORDER BY seq;

-- get_task: One task.
SELECT * FROM task WHERE task_id = :task_id;

-- get_tasks: Several tasks.
SELECT * FROM task WHERE task_id = ANY(:task_ids);

-- get_texts: Payloads of some tasks; a text over ``most`` bytes is left out unless its whole task is wanted.
SELECT task_id, version, kind, CASE WHEN strlen(body) <= :most OR list_contains(:whole, task_id) THEN body END
FROM payload WHERE task_id = ANY(:task_ids);

-- get_payloads: All payloads of some tasks.
SELECT task_id, version, kind, body FROM payload WHERE task_id = ANY(:task_ids);

-- events_of: The log of one task.
SELECT * FROM event WHERE task_id = :task_id ORDER BY seq;

-- submissions_of: With which facts several tasks were submitted.
SELECT * FROM event WHERE move = 'submit' AND task_id = ANY(:task_ids);

-- events_of_tasks: The log of several tasks.
SELECT * FROM event WHERE task_id = ANY(:task_ids) ORDER BY seq;

-- events_since: The log after a place; with ``move`` what it holds of one kind.
SELECT * FROM event WHERE seq > :since AND (CAST(:move AS VARCHAR) IS NULL OR move = :move) ORDER BY seq LIMIT :limit;

-- answered_until: Tasks that somebody had answered at a time.
SELECT DISTINCT task_id FROM event WHERE move = 'review' AND at_time <= :until;

-- unanswered: Tasks of a policy that people were asked about and that no answer holds for.
SELECT * FROM task
WHERE status NOT IN ('auto_approved', 'reviewed') AND audit_probability IS NOT NULL AND erased_at IS NULL
ORDER BY task_id;

-- pages: Ids that part the tasks of log and table into pages of about ``n`` lines.
SELECT DISTINCT task_id FROM (
    SELECT task_id, row_number() OVER (ORDER BY task_id) AS place
    FROM (SELECT task_id FROM event WHERE task_id IS NOT NULL UNION ALL SELECT task_id FROM task)
) WHERE place % :n = 0 ORDER BY task_id;

-- events_between: The log of the tasks after one id, up to another, task by task.
SELECT * FROM event
WHERE task_id IS NOT NULL AND (CAST(:after AS UUID) IS NULL OR task_id > :after) AND (CAST(:until AS UUID) IS NULL OR task_id <= :until)
ORDER BY task_id, seq;

-- tasks_between: The lines of the tasks after one id, up to another.
SELECT * FROM task
WHERE (CAST(:after AS UUID) IS NULL OR task_id > :after) AND (CAST(:until AS UUID) IS NULL OR task_id <= :until) ORDER BY task_id;

-- keys_between: The ingest keys of the tasks after one id, up to another.
SELECT task_id, body FROM payload
WHERE kind = 'key' AND (CAST(:after AS UUID) IS NULL OR task_id > :after) AND (CAST(:until AS UUID) IS NULL OR task_id <= :until);

-- event_by_submit: The answer that a client gave under an id.
SELECT * FROM event WHERE submit_id = :submit_id LIMIT 1;

-- submit_numbers: A number for each id under which a client changed something.
SELECT md5_number_lower(submit_id) AS number FROM event WHERE submit_id IS NOT NULL;

-- events_of_request: What a client's request has logged.
SELECT * FROM event WHERE submit_id = :request ORDER BY seq;

-- known_policy: Whether a policy is in the log.
SELECT body FROM event WHERE move = 'policy' AND actor = :fingerprint LIMIT 1;

-- known_keys: Tasks whose key has one of these hashes.
SELECT task_id, key_hash FROM task WHERE key_hash = ANY(:hashes);

-- rows_of_keys: Which tasks the keys of a batch may belong to.
SELECT given.line, CAST(task.task_id AS VARCHAR) AS task_id FROM given JOIN task ON task.key_hash = given.key_hash;

-- content_of_keys: Whether tasks have the keys of a batch, and came with the same content.
SELECT given.line, key.body = given.key, input.body = given.input AND prediction.body = given.prediction FROM given
JOIN payload AS key ON key.task_id = CAST(given.task_id AS UUID) AND key.kind = 'key' AND key.version = 1
JOIN payload AS input ON input.task_id = key.task_id AND input.kind = 'input' AND input.version = 1
JOIN payload AS prediction ON prediction.task_id = key.task_id AND prediction.kind = 'prediction' AND prediction.version = 1
ORDER BY given.line;

-- next_tasks: What can be claimed next of one expertise, best first.
SELECT * FROM task
WHERE status IN ('pending_review', 'disputed') AND expertise IS NOT DISTINCT FROM :expertise
ORDER BY priority DESC, deadline NULLS LAST, task_id
LIMIT :n;

-- candidates: What a reviewer could claim next, best first, from the whole table.
SELECT * FROM task
WHERE (status = 'pending_review' OR (status = 'disputed' AND :adjudicates))
  AND (expertise IS NULL OR expertise = ANY(:expertises))
  AND (position(:answered IN standing) = 0 OR (status = 'disputed' AND reviews_required = 1))
ORDER BY position(:passed IN skipped) > 0, priority DESC, deadline NULLS LAST, task_id
LIMIT :n;

-- open_tasks: What waits for a person, best first.
SELECT * FROM task
WHERE status IN ('pending_review', 'claimed', 'disputed')
