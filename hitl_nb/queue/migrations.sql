-- What brings a file to a schema version from the one before it: the version, a sentence, statements.
-- They run in one transaction with the new version number; queries.sql makes a new file as they leave an old one.

-- 2: Tokens, for queues that are served over the network.
CREATE TABLE token (
    hash VARCHAR NOT NULL, id VARCHAR NOT NULL, reviewer VARCHAR NOT NULL, expertise VARCHAR NOT NULL,
    roles VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, expires_at TIMESTAMP NOT NULL, revoked_at TIMESTAMP
);
