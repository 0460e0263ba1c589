/**
 * The embedded store: one SQLite file below the broker's state directory, for one broker at a time. Directory and files are the
 * owner's alone whatever the umask, since private keys are in them. Keys are synced to disk before a call returns; leases are
 * left to SQLite's checkpoints, which a killed process does not lose.
 */
import { chmodSync, closeSync, constants, lstatSync, mkdirSync, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import { limits } from '../../core/limits.ts';
import { Secret } from '../../core/secret.ts';
import type { BrokerStore, Decide, Lease, SigningAlgorithm, StoredAuthority, StoredKey } from '../store.ts';
import { migrations } from './schema.ts';
import { StoreError } from './store-error.ts';

const storeFile = 'broker.sqlite';

/** Throws StoreError when the directory, the file or its content cannot be used. */
export const openStore = async (stateDir: string): Promise<BrokerStore> => {
  const file = join(stateDir, storeFile);
  preparePrivately(stateDir, file);
  const database = openDatabase(file);
  try {
    return createStore(database, file);
  } catch (error) {
    database.close();
    throw describe(error, file);
  }
};

const preparePrivately = (stateDir: string, file: string): void => {
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    const directory = statSync(stateDir);
    // A mounted volume belongs to root and stays as the orchestrator made it; the file below is private either way.
    if (directory.uid === process.getuid?.() && (directory.mode & 0o777) !== 0o700) chmodSync(stateDir, 0o700);
    createPrivately(file);
  } catch (error) {
    if (error instanceof StoreError) throw error;
    const { code = 'unknown error' } = error as { code?: string };
    throw new StoreError(
      `${stateDir} cannot be used as the broker's state directory (${code}): let this user own it and write to it.`,
      error,
    );
  }
};

/** SQLite would create the file by the umask; its log file copies the mode of this one. */
const createPrivately = (file: string): void => {
  try {
    closeSync(openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600));
  } catch (error) {
    if ((error as { code?: string }).code !== 'EEXIST') throw error;
    // Not opened: closing it would give up the locks of another store on the same file in this process (POSIX).
    const existing = lstatSync(file);
    if (!existing.isFile()) throw new StoreError(`${file} is not a regular file: move it away.`);
    if ((existing.mode & 0o777) !== 0o600) chmodSync(file, 0o600);
  }
};

const openDatabase = (file: string): DatabaseSync => {
  let database: DatabaseSync | undefined;
  try {
    // Waits a moment for a broker that is just ending; only opening can meet a lock.
    database = new DatabaseSync(file, { timeout: limits.storeLockTimeoutMs });
    // Exclusive: a second broker on the same file would sign with keys that the first does not publish.
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA trusted_schema = OFF;');
    const [check] = database.prepare('PRAGMA quick_check(1)').all() as [{ quick_check: string }];
    if (check.quick_check !== 'ok') throw new StoreError(damaged(file));
    migrate(database, file);
    return database;
  } catch (error) {
    if (database?.isOpen === true) database.close();
    throw describe(error, file);
  }
};

const migrate = (database: DatabaseSync, file: string): void => {
  database.exec('BEGIN EXCLUSIVE');
  database.exec('CREATE TABLE IF NOT EXISTS schema_version (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL) STRICT');
  const row = database.prepare('SELECT version FROM schema_version').get() as { version: number } | undefined;
  const version = row?.version ?? 0;
  if (version > migrations.length) {
    throw new StoreError(
      `${file} was written by a newer Outrider (schema ${version}; this one knows ${migrations.length}): run that version, or restore a copy from before the upgrade.`,
    );
  }
  for (const migration of migrations.slice(version)) database.exec(migration);
  database
    .prepare('INSERT INTO schema_version VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET version = excluded.version')
    .run(migrations.length);
  database.exec('COMMIT');
};

const damaged = (file: string): string =>
  `${file} is damaged: restore it from a copy, or move it away and restart (the broker then makes a new authority and new keys, and every proxy needs the new trust bundle).`;

/** SQLite's primary result codes (https://www.sqlite.org/rescode.html): BUSY, LOCKED; CORRUPT, NOTADB; FULL; READONLY; IOERR. */
const describe = (error: unknown, file: string): StoreError => {
  if (error instanceof StoreError) return error;
  const { errcode = 0 } = error as { errcode?: number };
  const primary = errcode & 0xff;
  if (primary === 5 || primary === 6) return new StoreError(`${file} is in use: another broker runs on this state directory.`, error);
  if (primary === 11 || primary === 26) return new StoreError(damaged(file), error);
  if (primary === 13) return new StoreError(`${file} cannot be written: the disk is full.`, error);
  if (primary === 8 || primary === 10)
    return new StoreError(`${file} cannot be read or written: check the volume and its permissions.`, error);
  return new StoreError(`${file} cannot be used.`, error);
};

const createStore = (database: DatabaseSync, file: string): BrokerStore => {
  const statements = prepare(database);
  /** Every method: SQLite's errors become StoreErrors, and a throw becomes a rejection. */
  const guarded = async <T>(use: () => T): Promise<T> => {
    try {
      return use();
    } catch (error) {
      throw describe(error, file);
    }
  };
  /** As `guarded`, and on disk when it resolves. */
  const durably = (write: () => unknown): Promise<void> =>
    guarded(() => {
      database.exec('PRAGMA synchronous = FULL');
      try {
        write();
      } finally {
        database.exec('PRAGMA synchronous = NORMAL');
      }
    });
  const transaction = (write: () => void): Promise<void> =>
    durably(() => {
      database.exec('BEGIN IMMEDIATE');
      try {
        write();
        database.exec('COMMIT');
      } catch (error) {
        database.exec('ROLLBACK');
        throw error;
      }
    });
  /** The file is this broker's alone: nobody writes in between as long as changes come one after the other. */
  let changing: Promise<unknown> = Promise.resolve();
  const change = <K>(decide: Decide<K>, read: () => Promise<readonly K[]>, write: (keys: readonly K[]) => void): Promise<readonly K[]> => {
    const changed = changing.then(async () => {
      const before = await read();
      const next = await decide(before);
      if (next === undefined) return before;
      await transaction(() => write(next));
      return read();
    });
    changing = changed.catch(() => undefined);
    return changed;
  };
  const authorities = () => guarded(() => statements.authorities.all().map((row) => authorityOf(row as Row)));
  const signingKeys = () => guarded(() => statements.signingKeys.all().map((row) => keyOf(row as Row)));
  return {
    name: file,
    authorities,
    signingKeys,
    changeAuthorities: (decide) =>
      change(decide, authorities, (next) => {
        statements.deleteAuthorities.run();
        for (const { certificatePem, privateKeyPem, signsFromMs } of next) {
          statements.saveAuthority.run(certificatePem, privateKeyPem.reveal(), whole(signsFromMs));
        }
      }),
    changeSigningKeys: (decide) =>
      change(decide, signingKeys, (next) => {
        statements.deleteSigningKeys.run();
        for (const { kid, algorithm, privateKeyPem, publishedFromMs, signsFromMs } of next) {
          statements.saveSigningKey.run(kid, algorithm, privateKeyPem.reveal(), whole(publishedFromMs), whole(signsFromMs));
        }
      }),
    saveLease: (lease) => guarded(() => void statements.saveLease.run(...leaseValues(lease))),
    deleteExpiredLeases: (nowMs) => guarded(() => Number(statements.deleteExpiredLeases.run(nowMs).changes)),
    countLeases: (nowMs) => guarded(() => Number((statements.countLeases.get(nowMs) as Row)['count'])),
    leases: (nowMs, { workload = null, target = null } = {}) =>
      guarded(() => statements.leases.all({ nowMs, workload, target, max: limits.leasesListMax }).map((row) => leaseOf(row as Row))),
    close: () =>
      guarded(() => {
        if (database.isOpen) database.close();
      }),
  };
};

const prepare = (database: DatabaseSync) => ({
  authorities: database.prepare('SELECT * FROM authority ORDER BY signs_from_ms, certificate_pem'),
  saveAuthority: database.prepare('INSERT INTO authority VALUES (?, ?, ?)'),
  deleteAuthorities: database.prepare('DELETE FROM authority'),
  signingKeys: database.prepare('SELECT * FROM signing_key ORDER BY signs_from_ms, kid'),
  saveSigningKey: database.prepare('INSERT INTO signing_key VALUES (?, ?, ?, ?, ?)'),
  deleteSigningKeys: database.prepare('DELETE FROM signing_key'),
  saveLease: database.prepare('INSERT INTO lease VALUES (?, ?, ?, ?, ?, ?, ?, ?)'),
  deleteExpiredLeases: database.prepare('DELETE FROM lease WHERE expires_at_ms <= ?'),
  countLeases: database.prepare('SELECT count(*) AS count FROM lease WHERE expires_at_ms > ?'),
  leases: database.prepare(
    `SELECT * FROM lease WHERE expires_at_ms > $nowMs AND ($workload IS NULL OR workload = $workload) AND ($target IS NULL OR target = $target)
     ORDER BY created_at_ms, grant_id LIMIT $max`,
  ),
});

type Row = Readonly<Record<string, string | number>>;

const authorityOf = (row: Row): StoredAuthority => ({
  certificatePem: String(row['certificate_pem']),
  privateKeyPem: new Secret(String(row['private_key_pem'])),
  signsFromMs: Number(row['signs_from_ms']),
});

const keyOf = (row: Row): StoredKey => ({
  kid: String(row['kid']),
  algorithm: row['algorithm'] as SigningAlgorithm,
  privateKeyPem: new Secret(String(row['private_key_pem'])),
  publishedFromMs: Number(row['published_from_ms']),
  signsFromMs: Number(row['signs_from_ms']),
});

const leaseOf = (row: Row): Lease => ({
  grantId: String(row['grant_id']),
  workload: String(row['workload']),
  target: String(row['target']),
  policy: String(row['policy']),
  policyVersion: String(row['policy_version']),
  rule: String(row['rule']),
  createdAtMs: Number(row['created_at_ms']),
  expiresAtMs: Number(row['expires_at_ms']),
});

/** In the order of the table's columns. */
const leaseValues = (lease: Lease): SQLInputValue[] => [
  lease.grantId,
  lease.workload,
  lease.target,
  lease.policy,
  lease.policyVersion,
  lease.rule,
  whole(lease.createdAtMs),
  whole(lease.expiresAtMs),
];

/** Columns of a STRICT table take integers only; a clock may give fractions of a ms. */
const whole = (ms: number): number => Math.trunc(ms);
