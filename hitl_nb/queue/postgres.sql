-- What PostgreSQL must be told in other words than queries.sql; the same names. ``:name`` is a parameter.

-- create_index: What a claim, an answer and a look find rows by; each statement for itself.
CREATE SEQUENCE event_number;
ALTER TABLE event ADD PRIMARY KEY (seq);
ALTER TABLE task ADD PRIMARY KEY (task_id);
CREATE INDEX task_next ON task (coalesce(expertise, ''), priority DESC, deadline, task_id) WHERE status IN ('pending_review', 'disputed');
CREATE INDEX task_open ON task (priority DESC, deadline, task_id) WHERE status IN ('pending_review', 'claimed', 'disputed');
CREATE INDEX task_leased ON task (lease_until) WHERE status = 'claimed';
CREATE INDEX task_due ON task (due_at) WHERE due_at IS NOT NULL AND status IN ('pending_review', 'claimed', 'disputed');
CREATE INDEX task_answered ON task (reviewed_at DESC, task_id) WHERE status = 'reviewed';
CREATE INDEX task_keyed ON task (key_hash) WHERE key_hash IS NOT NULL;
CREATE INDEX event_of_task ON event (task_id, seq);
CREATE INDEX event_submitted ON event (submit_id) WHERE submit_id IS NOT NULL;
CREATE INDEX event_moved ON event (move, seq) WHERE move NOT IN ('submit', 'claim', 'renew', 'audit');
CREATE INDEX payload_of_task ON payload (task_id);
CREATE INDEX payload_subject ON payload USING hash (body) WHERE kind = 'subject';

-- begin: The transaction's own number, the time, and a number of the log; before it is taken, a lock tells where it begins.
WITH begun AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared(hashtext(current_schema()), CAST(mod(last_value, 2147483647) AS INTEGER)),
           CASE WHEN current_setting('idle_in_transaction_session_timeout') = '0'
                THEN set_config('idle_in_transaction_session_timeout', :idle, true) END,
           CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', true) END
    FROM event_number
)
SELECT pg_current_xact_id()::text, clock_timestamp() AT TIME ZONE 'UTC', nextval('event_number') FROM begun;

-- last_number: The last number of the log that anybody has taken.
SELECT last_value FROM event_number;

-- unfinished: How far before a number those began who still write; who began after it counts for nothing.
SELECT coalesce(max(before), 0) FROM (
    SELECT mod(mod(:last - CAST(CAST(objid AS TEXT) AS BIGINT), 2147483647) + 2147483647, 2147483647) AS before FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND classid = CAST(CAST(hashtext(current_schema()) AS BIGINT) & 4294967295 AS OID)
) AS writing WHERE before < 1073741823;

-- numbers: Further numbers of the log.
SELECT nextval('event_number') FROM generate_series(1, :n);

-- count_anew: Let the planner know how many lines of each kind there are now.
ANALYZE payload, event, task;

-- now: The time.
SELECT clock_timestamp() AT TIME ZONE 'UTC';

-- fate: What became of a transaction.
SELECT pg_xact_status(CAST(CAST(:xid AS TEXT) AS xid8));

-- lock_keys: Let nobody else submit under these keys until the end of the transaction, and no frame with keys.
SELECT pg_advisory_xact_lock_shared(1212765262), pg_advisory_xact_lock(hash) FROM unnest(CAST(:hashes AS bigint[])) AS hash;

-- lock_all_keys: Let nobody else submit under any key until the end of the transaction.
SELECT pg_advisory_xact_lock(1212765262);

-- lock_submit: Let nobody else answer under this id until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended(:submit_id, 1212765262));

-- stage: Let nobody drop tables of rows that are on their way before this transaction has ended; they may take their time.
SELECT pg_advisory_xact_lock(hashtextextended(:name, 1212765262)), set_config('idle_in_transaction_session_timeout', '3600s', true);

-- staged: Tables of rows whose transaction has ended, or never will come.
SELECT table_name FROM information_schema.tables
WHERE table_schema = current_schema() AND starts_with(table_name, :begins)
  AND pg_try_advisory_xact_lock(hashtextextended(regexp_replace(table_name, '_[0-9]+$', ''), 1212765262));

-- lock_tasks: Let nobody change a task until the end of the transaction.
LOCK TABLE task IN EXCLUSIVE MODE;

-- hint: Tell other processes which tasks have changed.
SELECT pg_notify(:channel, :tasks);

-- claimable: What a reviewer could claim next, best first, of each expertise; ``passed``: what they skipped comes, too.
SELECT found.* FROM (VALUES :expertises) AS one(name) CROSS JOIN LATERAL (
    SELECT * FROM task
    WHERE status IN ('pending_review', 'disputed') AND coalesce(expertise, '') = one.name
      AND (status = 'pending_review' OR :adjudicates)
      AND (position(:answered IN standing) = 0 OR (status = 'disputed' AND reviews_required = 1))
      AND (:passed OR position(:me IN skipped) = 0)
    ORDER BY priority DESC, deadline, task_id LIMIT :n
) AS found;

-- found_texts: The payload of a task that was found; a text over ``most`` bytes is left out.
SELECT ARRAY[CAST(version AS TEXT), kind, CASE WHEN octet_length(body) <= :most THEN body END]
FROM payload WHERE payload.task_id = found.task_id;

-- next_due: When the next lease or deadline is due.
SELECT least(
    (SELECT min(lease_until) FROM task WHERE status = 'claimed'),
    (SELECT min(due_at) FROM task
     WHERE due_at IS NOT NULL AND status IN ('pending_review', 'claimed', 'disputed') AND NOT (status = 'claimed' AND overdue)));

-- get_texts: Payloads of some tasks; a text over ``most`` bytes is left out unless its whole task is wanted.
SELECT task_id, version, kind, CASE WHEN octet_length(body) <= :most OR task_id = ANY(:whole) THEN body END
FROM payload WHERE task_id = ANY(:task_ids);

-- events_since: The log after a place, as far as nobody who still writes can add to it.
SELECT * FROM event
WHERE seq > :since AND seq <= :settled AND (CAST(:move AS VARCHAR) IS NULL OR move = :move)
ORDER BY seq LIMIT :limit;

-- recent_reviews: The last answers: who gave them, when the task came, was claimed, was done.
WITH said AS (
    SELECT task_id, seq, at_time, actor, body::json AS body FROM event WHERE move = 'review' ORDER BY seq DESC LIMIT :n
), timed AS (
    SELECT *, coalesce((body ->> 'claimed_at')::timestamp, at_time) AS claimed FROM said
)
SELECT task.expertise, actor, CASE WHEN body ->> 'number' = '1' THEN task.created_at ELSE claimed END, claimed, at_time
FROM timed JOIN task USING (task_id) ORDER BY timed.seq DESC;

-- recent_arrivals: When tasks for a person came, of each kind, as they came, from the end of the log; at once is once.
WITH came AS (
    SELECT task_id, at_time, body::json -> 'set' AS body FROM event
    WHERE move = 'submit' AND seq > (SELECT max(seq) FROM event) - 25 * :n
)
SELECT DISTINCT at_time, body ->> 'expertise' AS needs, coalesce((body ->> 'priority')::smallint, 0) AS urgency
FROM came WHERE (SELECT status FROM task WHERE task.task_id = came.task_id) <> 'auto_approved'
ORDER BY 1 DESC, 2 DESC NULLS LAST, 3 DESC LIMIT :n;

-- audit_counts: Audits after the fact; random audits drawn, judged, wrong, judged by two, and where those two differ.
WITH said AS (
    SELECT task_id, body::json ->> 'number' AS number, body::json ->> 'outcome' <> 'approve' AS wrong,
           (body::json ->> 'adjudication')::boolean AS adjudication
    FROM event WHERE move = 'review'
)
SELECT (SELECT count(*) FROM event WHERE move = 'audit'), count(*), count(first.wrong),
       count(*) FILTER (WHERE first.wrong), count(second.wrong), count(*) FILTER (WHERE first.wrong <> second.wrong)
FROM task
LEFT JOIN said AS first ON first.task_id = task.task_id AND first.number = task.standing::json -> 0 ->> 0
LEFT JOIN said AS second
  ON second.task_id = task.task_id AND second.number = task.standing::json -> 1 ->> 0 AND NOT second.adjudication
WHERE task.audit AND task.audit_probability > 0;

-- altered: Answers about a payload that is no longer what was shown, without a logged erasure.
SELECT DISTINCT event.task_id FROM event JOIN task USING (task_id)
LEFT JOIN payload AS input ON input.task_id = event.task_id AND input.kind = 'input'
  AND input.version = (event.body::json ->> 'version')::integer
LEFT JOIN payload AS prediction ON prediction.task_id = event.task_id AND prediction.kind = 'prediction'
  AND prediction.version = (event.body::json ->> 'version')::integer
WHERE event.move = 'review' AND task.erased_at IS NULL
  AND (CAST(:after AS UUID) IS NULL OR event.task_id > :after) AND (CAST(:until AS UUID) IS NULL OR event.task_id <= :until)
  AND encode(sha256(convert_to(concat(input.body, chr(10), prediction.body), 'UTF8')), 'hex') <> event.body::json ->> 'shown';

-- disorder: Where the log has a number twice; gaps are what units of work leave that came to nothing.
SELECT seq, 'twice' FROM event GROUP BY seq HAVING count(*) > 1 LIMIT :n;

-- extras: Here indexes are wanted.
SELECT 'index', 'none' WHERE false;

-- history: Every decision with its answer.
WITH said AS (
    SELECT task_id, version, kind, CASE WHEN starts_with(body, '{"$object":') THEN body::json -> '$object' ELSE body::json END AS body
    FROM payload WHERE kind IN ('prediction', 'correction')
), first AS (
    SELECT event.task_id, event.body::json ->> 'outcome' <> 'approve' AS wrong
    FROM event JOIN task USING (task_id)
    WHERE event.move = 'review' AND task.audit AND task.audit_probability > 0
      AND event.body::json ->> 'number' = task.standing::json -> 0 ->> 0
)
SELECT task.task_id, task.created_at AS at_time, task.confidence, (prediction.body -> 'label')::text AS prediction,
       CASE WHEN task.status <> 'reviewed' THEN NULL
            WHEN task.outcome = 'approve' THEN (prediction.body -> 'label')::text
            WHEN task.outcome = 'correct' THEN (correction.body -> 'label')::text END AS label,
       CASE WHEN task.audit AND task.audit_probability > 0 THEN first.wrong
            WHEN task.status = 'reviewed' THEN task.outcome <> 'approve' END AS wrong,
       task.review_probability, CASE WHEN task.status = 'reviewed' THEN task.outcome END AS outcome,
       CASE WHEN task.status = 'reviewed' THEN task.reviewer END AS reviewer,
       task.grouping AS "group", task.value, task.model, task.policy, task.status, task.priority, task.expertise,
       task.deadline, task.reasons, task.hard,
       (prediction.body -> 'is_anomalous')::text AS is_anomalous,
       (prediction.body -> 'high_value_transaction')::text AS high_value_transaction,
       (prediction.body -> 'irreversible')::text AS irreversible,
       (prediction.body -> 'regulated')::text AS regulated,
       task.audit_uniform, task.audit_probability, task.claimed_at,
       CASE WHEN task.status = 'reviewed' THEN task.reviewed_at END AS reviewed_at
FROM task
LEFT JOIN first ON first.task_id = task.task_id
LEFT JOIN said AS prediction
  ON prediction.task_id = task.task_id AND prediction.version = task.version AND prediction.kind = 'prediction'
LEFT JOIN said AS correction
  ON correction.task_id = task.task_id AND correction.version = task.final AND correction.kind = 'correction'
ORDER BY task.task_id;

-- all_payload: The payloads.
SELECT * FROM payload ORDER BY task_id, version, kind;

-- all_event: The log.
SELECT * FROM event ORDER BY seq;

-- all_task: The task table.
SELECT * FROM task ORDER BY task_id;
