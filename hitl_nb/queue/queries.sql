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

-- tokens: All tokens, with the hashes of their secrets.
SELECT hash, id, reviewer, expertise, roles, created_at, expires_at, revoked_at FROM token ORDER BY created_at, id;

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

-- known_ids: A task that has an id of a batch.
SELECT CAST(task.task_id AS VARCHAR) AS task_id FROM given JOIN task ON task.task_id = CAST(given.task_id AS UUID) LIMIT 1;

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
  AND (:anybody OR expertise IS NULL OR expertise = ANY(:expertises))
ORDER BY priority DESC, deadline NULLS LAST, task_id
LIMIT :n;

-- open_after: What waits for a person, by id, from the one after a place.
SELECT * FROM task
WHERE status IN ('pending_review', 'claimed', 'disputed') AND task_id > CAST(:after AS UUID)
  AND (:anybody OR expertise IS NULL OR expertise = ANY(:expertises))
ORDER BY task_id
LIMIT :n;

-- answered_last: What was answered last, newest first.
SELECT * FROM task WHERE status = 'reviewed' AND erased_at IS NULL ORDER BY reviewed_at DESC, task_id LIMIT :n;

-- leases_out: Claims whose time is over.
SELECT * FROM task WHERE status = 'claimed' AND lease_until <= :now ORDER BY task_id LIMIT :n;

-- deadlines_due: Open tasks whose deadline acts now.
SELECT * FROM task
WHERE due_at <= :now AND (status IN ('pending_review', 'disputed') OR (status = 'claimed' AND NOT overdue)) ORDER BY task_id LIMIT :n;

-- next_due: When the next lease or deadline is due.
SELECT min(CASE WHEN status = 'claimed' AND (overdue OR due_at IS NULL OR lease_until < due_at) THEN lease_until
                ELSE due_at END)
FROM task WHERE status IN ('pending_review', 'claimed', 'disputed');

-- backlog: How much waits, by expertise and priority: all, claimed, since when, last claim.
SELECT expertise, priority, count(*), count(*) FILTER (WHERE status = 'claimed'), min(created_at), max(claimed_at) FROM task
WHERE status IN ('pending_review', 'claimed', 'disputed') GROUP BY expertise, priority;

-- open_times: Since when the oldest open task waits, and the next deadline.
SELECT min(created_at), min(deadline) FILTER (WHERE NOT overdue)
FROM task WHERE status IN ('pending_review', 'claimed', 'disputed');

-- recent_reviews: The last answers that the task table shows: who gave them, when the task came, was claimed, was done.
WITH said AS (
    SELECT task_id, seq, at_time, actor, CASE WHEN json_valid(body) THEN body ELSE '{}' END AS body
    FROM event WHERE move = 'review' AND seq <= (SELECT max(seq) FROM task) ORDER BY seq DESC LIMIT :n
), timed AS (
    SELECT *, coalesce(TRY_CAST(json_extract_string(body, '$.claimed_at') AS TIMESTAMP), at_time) AS claimed FROM said
)
SELECT task.expertise, actor, CASE WHEN json_extract(body, '$.number') = 1 THEN task.created_at ELSE claimed END,
       claimed, at_time
FROM timed JOIN task USING (task_id) ORDER BY timed.seq DESC;

-- recent_arrivals: When tasks for a person came, of each kind, as they came, from the end of the log; at once is once.
WITH came AS (
    SELECT task_id, at_time, CASE WHEN json_valid(body) THEN body ELSE '{}' END AS body
    FROM event, (SELECT max(seq) AS last FROM task)
    WHERE move = 'submit' AND seq > last - 25 * :n AND seq <= last
)
SELECT DISTINCT at_time, json_extract_string(body, '$.set.expertise') AS needs,
       coalesce(TRY_CAST(json_extract_string(body, '$.set.priority') AS TINYINT), 0) AS urgency
FROM came JOIN task USING (task_id) WHERE task.status <> 'auto_approved' ORDER BY ALL DESC LIMIT :n;

-- counts: How many tasks there are of each kind.
SELECT status, outcome, priority, expertise, overdue, count(*) FROM task
GROUP BY status, outcome, priority, expertise, overdue;

-- audit_counts: Audits after the fact; random audits drawn, judged, wrong, judged by two, and where those two differ.
WITH said AS (
    SELECT task_id, json_extract(body, '$.number') AS number, json_extract_string(body, '$.outcome') <> 'approve' AS wrong,
           CAST(json_extract(body, '$.adjudication') AS BOOLEAN) AS adjudication
    FROM event WHERE move = 'review'
)
SELECT (SELECT count(*) FROM event WHERE move = 'audit'), count(*), count(first.wrong),
       count(*) FILTER (WHERE first.wrong), count(second.wrong), count(*) FILTER (WHERE first.wrong <> second.wrong)
FROM task
LEFT JOIN said AS first
  ON first.task_id = task.task_id AND first.number = json_extract(task.standing, '$[0][0]')
LEFT JOIN said AS second
  ON second.task_id = task.task_id AND second.number = json_extract(task.standing, '$[1][0]') AND NOT second.adjudication
WHERE task.audit AND task.audit_probability > 0;

-- reviewer_counts: How many answers each reviewer gave: all, of the last hour, of the last day; and when the last one.
SELECT actor, count(*), count(*) FILTER (WHERE at_time > :hour), count(*) FILTER (WHERE at_time > :day), max(at_time)
FROM event WHERE move = 'review' GROUP BY actor ORDER BY 2 DESC, 1;

-- subject_tasks: Tasks about a subject.
SELECT DISTINCT task_id FROM payload WHERE kind = 'subject' AND body = :subject;

-- erase: Remove the payloads of a task.
DELETE FROM payload WHERE task_id = :task_id;

-- missing_payload: Tasks whose payload is gone without a logged erasure.
SELECT task.task_id FROM task LEFT JOIN payload
  ON payload.task_id = task.task_id AND payload.version = task.version AND payload.kind = 'input'
WHERE payload.task_id IS NULL AND task.erased_at IS NULL LIMIT :n;

-- stray_payload: Payloads of no task, or of an erased one.
SELECT DISTINCT payload.task_id FROM payload LEFT JOIN task USING (task_id)
WHERE task.task_id IS NULL OR task.erased_at IS NOT NULL LIMIT :n;

-- altered: Answers about a payload that is no longer what was shown, without a logged erasure.
SELECT DISTINCT event.task_id FROM event JOIN task USING (task_id)
LEFT JOIN payload AS input ON input.task_id = event.task_id AND input.kind = 'input'
  AND input.version = CAST(json_extract(event.body, '$.version') AS INTEGER)
LEFT JOIN payload AS prediction ON prediction.task_id = event.task_id AND prediction.kind = 'prediction'
  AND prediction.version = CAST(json_extract(event.body, '$.version') AS INTEGER)
WHERE event.move = 'review' AND task.erased_at IS NULL
  AND (CAST(:after AS UUID) IS NULL OR event.task_id > :after) AND (CAST(:until AS UUID) IS NULL OR event.task_id <= :until)
  AND sha256(concat(input.body, chr(10), prediction.body)) <> json_extract_string(event.body, '$.shown');

-- disorder: Where the log does not go on by one, or goes back in time.
SELECT seq, CASE WHEN seq <= before THEN 'twice' WHEN seq > before + 1 THEN 'gap' ELSE 'back' END FROM (
    SELECT seq, lag(seq, 1, 0) OVER log AS before, at_time < lag(at_time) OVER log AS back
    FROM event WINDOW log AS (ORDER BY seq)
) WHERE seq <> before + 1 OR back ORDER BY seq LIMIT :n;

-- doubled: Ids that stand twice.
SELECT task_id FROM task GROUP BY task_id HAVING count(*) > 1 LIMIT :n;

-- extras: Indexes and constraints, of which there are to be none: each has cost the engine data before.
SELECT 'index', index_name FROM duckdb_indexes() WHERE database_name = current_database()
UNION ALL
SELECT 'constraint', constraint_name FROM duckdb_constraints()
WHERE constraint_type <> 'NOT NULL' AND database_name = current_database();

-- copies: Copies that were made of the queue.
SELECT * FROM event WHERE move IN ('backup', 'snapshot', 'export') ORDER BY seq;

-- traces: What may hold some tasks beside this file: copies made since they came, models fitted since they were answered.
SELECT * FROM event
WHERE seq <= :until AND (
    (move IN ('backup', 'snapshot', 'export') AND seq > (SELECT min(seq) FROM event WHERE task_id = ANY(:task_ids)))
    OR (move = 'retrain'
        AND seq > (SELECT min(seq) FROM event WHERE move = 'review' AND task_id = ANY(:task_ids)))
) ORDER BY seq;

-- clear_tasks: Empty the derived table before it is rebuilt.
DELETE FROM task;

-- history: Every decision with its answer.
WITH said AS (
    SELECT task_id, version, kind,
           CASE WHEN starts_with(body, '{"$object":') THEN json_extract(body, '$."$object"') ELSE body END AS body
    FROM payload WHERE kind IN ('prediction', 'correction')
), first AS (
    SELECT event.task_id, json_extract_string(event.body, '$.outcome') <> 'approve' AS wrong
    FROM event JOIN task USING (task_id)
    WHERE event.move = 'review' AND task.audit AND task.audit_probability > 0
      AND json_extract(event.body, '$.number') = json_extract(task.standing, '$[0][0]')
)
SELECT task.task_id, task.created_at AS at_time, task.confidence, json_extract(prediction.body, '$.label') AS prediction,
       CASE WHEN task.status <> 'reviewed' THEN NULL
            WHEN task.outcome = 'approve' THEN json_extract(prediction.body, '$.label')
            WHEN task.outcome = 'correct' THEN json_extract(correction.body, '$.label') END AS label,
       CASE WHEN task.audit AND task.audit_probability > 0 THEN first.wrong
            WHEN task.status = 'reviewed' THEN task.outcome <> 'approve' END AS wrong,
       task.review_probability, CASE WHEN task.status = 'reviewed' THEN task.outcome END AS outcome,
       CASE WHEN task.status = 'reviewed' THEN task.reviewer END AS reviewer,
       task.grouping AS "group", task.value, task.model, task.policy, task.status, task.priority, task.expertise,
       task.deadline, task.reasons, task.hard,
       json_extract(prediction.body, '$.is_anomalous') AS is_anomalous,
       json_extract(prediction.body, '$.high_value_transaction') AS high_value_transaction,
       json_extract(prediction.body, '$.irreversible') AS irreversible,
       json_extract(prediction.body, '$.regulated') AS regulated,
       task.audit_uniform, task.audit_probability, task.claimed_at,
       CASE WHEN task.status = 'reviewed' THEN task.reviewed_at END AS reviewed_at
FROM task
LEFT JOIN first ON first.task_id = task.task_id
LEFT JOIN said AS prediction
  ON prediction.task_id = task.task_id AND prediction.version = task.version AND prediction.kind = 'prediction'
LEFT JOIN said AS correction
  ON correction.task_id = task.task_id AND correction.version = task.final AND correction.kind = 'correction'
ORDER BY task.task_id;

-- inputs: Every input that was not erased.
SELECT payload.task_id, payload.body FROM payload JOIN task
  ON payload.task_id = task.task_id AND payload.version = task.version AND payload.kind = 'input'
ORDER BY payload.task_id;
