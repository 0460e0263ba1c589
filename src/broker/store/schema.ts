/**
 * The embedded store's tables, version by version. A change is a new entry at the end, never an edit: each is applied once, in
 * order, and `schema_version` holds how many were.
 */
export const migrations: readonly string[] = [
  `
  CREATE TABLE authority (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    certificate_pem TEXT NOT NULL,
    private_key_pem TEXT NOT NULL
  ) STRICT;
  CREATE TABLE signing_key (
    kid TEXT PRIMARY KEY,
    algorithm TEXT NOT NULL CHECK (algorithm IN ('ES256', 'RS256')),
    private_key_pem TEXT NOT NULL,
    published_from_ms INTEGER NOT NULL,
    signs_from_ms INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE lease (
    grant_id TEXT PRIMARY KEY,
    workload TEXT NOT NULL,
    target TEXT NOT NULL,
    policy TEXT NOT NULL,
    policy_version TEXT NOT NULL,
    rule TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX lease_expiry ON lease (expires_at_ms);
  `,
  // Several authorities, one of which signs: the one there was has signed all along.
  `
  ALTER TABLE authority RENAME TO authority_before;
  CREATE TABLE authority (
    certificate_pem TEXT PRIMARY KEY,
    private_key_pem TEXT NOT NULL,
    signs_from_ms INTEGER NOT NULL
  ) STRICT;
  INSERT INTO authority SELECT certificate_pem, private_key_pem, 0 FROM authority_before;
  DROP TABLE authority_before;
  `,
];
