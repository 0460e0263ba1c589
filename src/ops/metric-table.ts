/**
 * Every metric: name, kind, labels and meaning, by Prometheus' naming conventions (base units, `_total` for counters). README.md
 * shows this table; test/tidy.test.ts compares them. Every label is bounded: names come from configuration, codes from tables.
 */
export interface MetricRow {
  readonly kind: 'counter' | 'gauge' | 'histogram';
  readonly labels: readonly string[];
  readonly help: string;
}

const counter = <const L extends readonly string[]>(labels: L, help: string) => ({ kind: 'counter', labels, help }) as const;
const gauge = <const L extends readonly string[]>(labels: L, help: string) => ({ kind: 'gauge', labels, help }) as const;
const histogram = <const L extends readonly string[]>(labels: L, help: string) => ({ kind: 'histogram', labels, help }) as const;

// biome-ignore format: a table reads best as a table
export const metricTable = {
  // Proxy
  outrider_proxy_requests_total: counter(['target', 'decision', 'code_class'], 'Requests and tunnels ended, by target ("" for unmatched), decision (allow, deny, pass, fault) and status class.'),
  outrider_proxy_faults_total: counter(['code'], 'Exchanges that ended in a fault, by fault code.'),
  outrider_proxy_stage_duration_seconds: histogram(['stage'], 'Time a request spent in a stage; "total" is from the accepted head to the end of the response.'),
  outrider_proxy_body_bytes_total: counter(['direction'], 'Body and tunnel bytes forwarded, by direction (request, response).'),
  outrider_proxy_connections: gauge(['kind'], 'Open connections from programs, by kind (client, tunnel).'),
  outrider_proxy_connections_max: gauge([], 'Connections from programs that are taken at a time.'),
  outrider_proxy_overload_total: counter(['reason'], 'Refusals and closures for load: connections (503 at once), connections_dropped (closed unanswered), connections_idle and connections_slow (closed to make room), memory, requests and held_bytes (503), descriptors (accepting failed).'),
  outrider_proxy_memory_short: gauge([], 'Whether resident memory is above its mark (1), so that only a few requests run at a time, or not (0).'),
  outrider_proxy_held_bytes: gauge([], 'Bytes of bodies and answers held in memory for placements, retries and the echo guard.'),
  outrider_proxy_event_loop_utilization_ratio: gauge([], 'Share of the last tenth of a second in which the one thread was busy, 0 to 1.'),
  outrider_proxy_leaves_minted_total: counter([], 'Interception certificates made.'),
  outrider_proxy_grant_cache_requests_total: counter(['result'], 'Lookups in the grant cache: hit, miss, joined (waited for a fetch under way), denied or failed (remembered refusal or failure).'),
  outrider_proxy_grants: gauge([], 'Grants in the cache.'),
  outrider_proxy_grant_refreshes_total: counter(['target', 'result'], 'Grants fetched ahead of expiry, by target and result (ok or a fault code).'),
  outrider_proxy_grant_expiry_timestamp_seconds: gauge(['target'], 'When the cached grant for a target expires, Unix time; not there once it has.'),
  outrider_proxy_broker_calls_total: counter(['method', 'code'], 'Calls to the broker, by method and result (ok or a fault code). A Watch counts as ok at its first snapshot, and once more when it is lost.'),
  outrider_proxy_broker_call_duration_seconds: histogram(['method'], 'Duration of calls to the broker.'),
  outrider_proxy_broker_connected: gauge([], 'Whether the broker is being watched (1) or not (0).'),
  outrider_proxy_svid_expiry_timestamp_seconds: gauge([], 'When the current SVID expires, Unix time; 0 before the first.'),
  outrider_proxy_svid_renewals_total: counter(['result'], 'Attestations, by result (ok or a fault code).'),
  outrider_proxy_targets: gauge([], 'Targets the broker has told this proxy of.'),
  outrider_proxy_events_queued: gauge([], 'Access events waiting for the collector to store them.'),
  outrider_proxy_events_sent_total: counter([], 'Access events written to the collector, repeats included.'),
  outrider_proxy_events_acknowledged_total: counter([], 'Access events the collector has stored.'),
  outrider_proxy_events_lost_total: counter(['kind'], 'Access events discarded because the queue was full.'),
  outrider_proxy_collector_connected: gauge([], 'Whether the event stream to the collector is open (1) or not (0).'),
  outrider_proxy_echoes_total: counter(['target', 'action'], 'Places in answers that repeated the credential, by target and action (redacted, refused).'),
  outrider_proxy_answers_unsearched_total: counter(['target', 'reason'], 'Answers to credentialed requests that were not searched for the credential, or not all of them: size, encoding, expansion (a bomb), busy (too many at a time), upgrade.'),
  outrider_proxy_credential_retries_total: counter(['target', 'result'], 'Credentialed requests that the target answered 401: accepted or rejected (repeated once with a fresh credential), failed (the repetition ended in a fault), unchanged (there is no other credential), unavailable (the broker gave none), denied (by policy), unrepeatable (the body was not kept).'),
  outrider_proxy_static_credential_requests_total: counter(['target'], 'Requests that carried a static credential: migration debt.'),

  // Broker
  outrider_broker_rpc_requests_total: counter(['method', 'code'], 'gRPC calls answered, by method and result (ok or a fault code).'),
  outrider_broker_rpc_duration_seconds: histogram(['method'], 'Duration of gRPC calls (streams excepted).'),
  outrider_broker_attestations_total: counter(['attestor', 'result'], 'Attestations, by attestor ("" when none was chosen) and result (ok or a fault code).'),
  outrider_broker_grants_total: counter(['target', 'result'], 'Grant decisions, by target and result (ok or a fault code).'),
  outrider_broker_provider_requests_total: counter(['provider', 'result'], 'Credentials asked of providers, by provider and result (ok or a fault code).'),
  outrider_broker_provider_duration_seconds: histogram(['provider'], 'Time to obtain a credential.'),
  outrider_broker_leases: gauge([], 'Grants that are out and not expired.'),
  outrider_broker_watchers: gauge([], 'Open Watch streams.'),
  outrider_broker_static_credentials: gauge(['provider'], 'Targets that use a static provider: migration debt.'),
  outrider_broker_signing_keys: gauge([], 'Published token-signing keys.'),
  outrider_broker_signing_key_rotation_timestamp_seconds: gauge([], 'When the token-signing key changes next, Unix time.'),
  outrider_broker_key_checks_total: counter(['result'], 'Looks at the stored keys, at least every 12 s where brokers share them: ok, or failed (the keys that are known go on).'),
  outrider_broker_authority_expiry_timestamp_seconds: gauge([], "When the trust domain's authority expires, Unix time."),
  outrider_broker_configuration_current: gauge([], 'Whether the configuration, as its files say it now, is in force (1), or was rejected so that the one before still is (0).'),
  outrider_broker_configuration_reloads_total: counter(['result'], 'Configuration reloads, by result (ok, rejected).'),

  // Collector
  outrider_collector_streams: gauge([], 'Open event streams.'),
  outrider_collector_events_stored_total: counter(['kind'], 'Access events stored, by kind.'),
  outrider_collector_events_duplicate_total: counter([], 'Access events received again after they were stored.'),
  outrider_collector_events_missing_total: counter([], 'Sequence numbers that never arrived.'),
  outrider_collector_events_lost_total: counter([], 'Events that proxies report as discarded.'),
  outrider_collector_events_refused_total: counter(['reason'], 'Events refused, by reason.'),
  outrider_collector_store_failures_total: counter([], 'Batches that could not be stored and were not acknowledged.'),
  outrider_collector_store_duration_seconds: histogram([], 'Time to store a batch durably.'),
  outrider_collector_svid_expiry_timestamp_seconds: gauge([], 'When the current SVID expires, Unix time; 0 before the first.'),
  outrider_collector_svid_renewals_total: counter(['result'], 'Attestations, by result (ok or a fault code).'),

  // Injector
  outrider_injector_reviews_total: counter(['result'], 'Admission reviews answered, by result (injected, unchanged, denied, failed).'),
  outrider_injector_review_duration_seconds: histogram([], 'Time to answer a review.'),
  outrider_injector_pods: gauge(['namespace', 'state'], 'Pods that have not ended where there should be a proxy, in labelled namespaces or labelled themselves, by state (injected, uninjected, opted_out).'),
  outrider_injector_serving_certificate_expiry_timestamp_seconds: gauge([], "When the webhook's certificate expires, Unix time; 0 before the first."),
  outrider_injector_webhook_ca_current: gauge([], 'Whether every webhook of the configuration has our authorities as caBundle, or one that verifies the certificate where that comes from files (1), or not (0); NaN, with files alone, until the configuration could be read.'),
  outrider_injector_trust_published_namespaces: gauge([], "Namespaces in which the trust domain's authorities are current."),
  outrider_injector_api_failures_total: counter(['operation'], 'Calls to the API server that failed, by operation (secret, webhook_configuration, trust, census, event).'),
} satisfies Record<string, MetricRow>;

export type MetricName = keyof typeof metricTable;
export type MetricLabels<N extends MetricName> = Readonly<Record<(typeof metricTable)[N]['labels'][number], string>>;
