/**
 * Attacks on a proxy that holds credentials, by the numbers of the threat model, and for each what shows that it fails: files and names of
 * tests. What is not ours to stop, or not yet, has one sentence instead or besides. SECURITY.md shows this as a table (`npm run docs`);
 * threats.test.ts checks that every test is there and that no attack is missing.
 */
export interface Threat {
  readonly id: string;
  /** The attack, in one line. */
  readonly attack: string;
  /** Test file below test/ → what its name says, as it is written there. */
  readonly shownBy: readonly (readonly [file: string, name: string])[];
  /** What is left, and whose it is. */
  readonly left?: string;
}

const threat = (id: string, attack: string, shownBy: Threat['shownBy'], left?: string): Threat => ({
  id,
  attack,
  shownBy,
  ...(left === undefined ? {} : { left }),
});

/** What an attack on the event log would need the log on disk for. */
const inMemory =
  'Events wait in memory in this release: a proxy that is killed loses what was not acknowledged, visibly, by its sequence numbers.';

// biome-ignore format: a table reads best as a table
export const threats: readonly Threat[] = [
  // Spoofing, and credentials that leave
  threat('E-1', 'The names of a request disagree: CONNECT, server name, URL, Host', [
    ['proxy/authority-table.test.ts', 'a credential goes where all names agree and nowhere else: five values of five names, three ways in, two protocols'],
    ['proxy/authority-sockets.test.ts', 'over real sockets a credential is seen where all names agree, and nowhere else'],
  ]),
  threat('E-2', 'A later request of an allowed tunnel names another host', [
    ['proxy/authority-sockets.test.ts', 'in a tunnel every request is judged anew, and the one that differs ends it'],
  ]),
  threat('E-3', 'An absolute URL beside another Host, or with user information', [
    ['proxy/authority.test.ts', 'outside a tunnel: absolute-form and Host'],
    ['proxy/authority.test.ts', 'other ports, schemes and spellings of a destination'],
  ]),
  threat('E-4', 'Spellings of a host: case, dots, ports, punycode, addresses, twice', [
    ['proxy/authority-table.test.ts', 'every spelling of every name against every other is the same place, or refused without a credential'],
    ['proxy/authority-table.test.ts', 'another reading of the same grammar, in another language, finds the same places'],
    ['proxy/authority-table.test.ts', 'a name that is given twice is refused, whatever the two are'],
  ]),
  threat('E-5', "A steered program dials an attacker's address under a target's name", [
    ['flow/transparent.test.ts', 'an attacker’s address under a target’s name sees neither a credential nor a handshake'],
    ['proxy/authority-sockets.test.ts', 'over real sockets a credential is seen where all names agree, and nowhere else'],
  ]),
  threat('E-6', 'DNS answers that change, or mix good and bad addresses', [
    ['proxy/dial-guard.test.ts', 'a name is resolved once for a connection, and what was judged is what is dialled: 10,000 tries against answers that change'],
    ['net/dial.test.ts', 'one prohibited answer among permitted ones refuses the name'],
  ]),
  threat('E-7', 'Special addresses in every spelling and disguise, and our own listeners', [
    ['proxy/dial-guard.test.ts', 'no spelling of a special address is dialled for a program: absolute form, CONNECT, or steered there'],
    ['proxy/dial-guard.test.ts', 'no name that leads to a special address is dialled, alone or among others: absolute form, CONNECT, reverse route, target'],
    ['proxy/dial-guard.test.ts', 'our own listeners, the broker and the collector are dialled for no program, by whatever name'],
    ['net/guard.test.ts', 'every special range is known, in every form'],
  ], 'A NAT64 prefix of the network’s own choice, and addresses of the broker behind its service address, cannot be known here: a NetworkPolicy can.'),
  threat('E-8', 'A redirect carries the credential elsewhere', [
    ['proxy/dial-guard.test.ts', 'redirects are the program’s to follow: whatever status and place, the target is asked once and the place never'],
    ['net/fetch.test.ts', 'redirects are answers like others, never followed'],
  ]),
  threat('E-9', 'A target repeats the credential in its answer', [
    ['proxy/echo.test.ts', 'of the answer is written over, in every spelling'],
    ['proxy/echo.test.ts', 'of the answer refuses it where that is wanted'],
    ['core/needle.test.ts', 'is found, wherever the stream is cut'],
    ['proxy/echo.test.ts', 'what cannot be decoded within bounds passes, counted, or is refused'],
  ], 'Best effort: an encoding that is not in the list, an encryption, or anything after an upgrade, is not seen. Credentials that prove possession (SigV4, DPoP, client certificates) are worth nothing repeated.'),
  threat('E-10', 'A credential that holds line ends or control characters', [
    ['proxy/inject-values.test.ts', 'every character at every place is read back as it was, or refused'],
    ['proxy/inject-values.test.ts', 'no value with a line break, a NUL or a character beyond ASCII is written'],
    ['proxy/request-path.test.ts', 'a credential that cannot be written is never sent'],
    ['property/headers.test.ts', 'a credential that could end a field is never written: each byte at each place of it'],
  ]),
  threat('E-11', 'Connection names the credential, or framing; Proxy-* travels on', [
    ['core/headers-and-secret.test.ts', 'Connection must not name what carries framing, routing or credentials'],
    ['core/headers-and-secret.test.ts', 'hop-by-hop fields and those that Connection names do not travel'],
  ]),
  threat('E-12', "The program's own value beside ours: duplicates, underscores, trailers", [
    ['property/headers.test.ts', 'a credential in a field is there exactly once, in whatever spelling a program filled its place, and nothing else moves'],
    ['conformance/placements.test.ts', 'a trailer of the name of a field that is written, or of one that signs, does not arrive'],
    ['proxy/inject-cookie.test.ts', 'every cookie that some server reads by its name is replaced'],
  ]),
  threat('E-13', 'Paths that servers read in more than one way', [
    ['core/request-target.test.ts', 'a path that servers read differently is refused'],
    ['core/path-readings.test.ts', 'a path that is taken for unambiguous is the same for every reader'],
    ['core/path-readings.test.ts', 'verbatim: what is allowed is allowed whichever way it is read, and what is sent is what was judged'],
  ], 'Servers that ignore case read /Admin as /admin; rules do not.'),
  threat('E-14', 'Queries that servers read in more than one way', [
    ['property/path.test.ts', 'a query parameter that is set is there once for every reader, and the others keep their bytes and order'],
  ], 'Rules do not speak of queries yet, so there is nothing to be misread.'),
  threat('E-15', 'A target that covers hosts of strangers', [
    ['rpc/wire.test.ts', 'a grant that is not whole is refused'],
    ['flow/faults-broker.test.ts', 'snapshots that lie end the watch, and what was known stands'],
  ], 'Targets name whole hosts; there are no wildcards to get wrong.'),
  threat('E-16', 'Fields that change method, host or path behind our back', [
    ['property/headers.test.ts', 'a credential in a field is there exactly once, in whatever spelling a program filled its place, and nothing else moves'],
  ], 'The known ones do not travel with a credential; a service with fields of its own for that needs rules that do not rest on the method.'),
  threat('E-17', 'A blind tunnel after an upgrade that was none', [
    ['proxy/upgrade.test.ts', 'what the program sends before the 101 reaches the target only after it'],
    ['proxy/upgrade.test.ts', 'a 101 that answers another key, another protocol, or nothing at all is not believed'],
    ['proxy/upgrade.test.ts', 'an upgrade to HTTP/2, one that Connection does not name, and one with a body are ordinary requests, and their Upgrade ends here'],
    ['proxy/authority.test.ts', 'CONNECT has one authority with a port, and its Host agrees'],
  ]),
  threat('E-18', 'Placeholders and credentials in places nobody agreed to', [
    ['proxy/inject-placeholder.test.ts', 'the placeholder in its place is replaced and goes nowhere'],
    ['proxy/inject-placeholder.test.ts', 'a body that is held is searched before anything is sent, its trailers too'],
    ['proxy/inject-placeholder.test.ts', 'a streamed body that holds it is broken off before the target has all of it, across chunks too'],
  ], 'What passes in an upgraded connection is not read.'),
  threat('E-19', 'A connection that was made for another name or workload is shared', [
    ['net/outbound.test.ts', 'connections are shared by requests that are equal in every term, and by no others'],
    ['net/outbound.test.ts', 'of a thousand requests for two identities each goes out as its own, and each connection carries one of them'],
    ['net/outbound.test.ts', 'the second connection to a target resumes the first one, and with other terms none is resumed'],
  ]),
  threat('E-20', 'Names of denied hosts carry data out through DNS', [
    ['proxy/dial-guard.test.ts', 'names that are refused are never resolved'],
  ], 'With onUnmatched: tunnel, and beside the proxy, a program may resolve what it likes: a NetworkPolicy stops that.'),

  // Framing
  threat('F-1', 'Conflicting or odd lengths and transfer codings', [
    ['proxy/framing.test.ts', 'conflicting or odd framing gets 400, the connection is closed, nothing is sent on'],
    ['fuzz/desync.test.ts', '${name} as origin sees only what was intended'],
    ['fuzz/exchange.test.ts', 'damaged requests: the target sees what was judged and intended, and nothing else'],
    ['property/headers.test.ts', 'a head has one framing or is refused, whatever fields frame it'],
  ]),
  threat('F-2', 'A body where methods have none', [['proxy/framing.test.ts', 'a body that looks like a request stays a body, for every method']]),
  threat('F-3', 'An answer before the body, and what comes after it', [
    ['net/outbound-pooled.test.ts', 'an answer before the end of the request is passed on, the rest of the body is let go, the connection not reused'],
    ['proxy/http1.test.ts', 'an early answer is passed on at once; the rest of the body is dropped and the target'],
    ['proxy/stream-body.test.ts', 'a read that waits when nobody wants the rest any more is refused, and not told that the body has ended'],
  ]),
  threat('F-4', 'Chunk extensions, bare line ends, trailers that frame', [
    ['proxy/framing.test.ts', 'a chunk extension is bounded, none is passed on, and trailers are bounded too'],
    ['proxy/http1.test.ts', 'trailers go both ways, without those that frame, route or authenticate'],
  ]),
  threat('F-5', 'Framing that breaks after the head was sent on', [
    ['proxy/framing.test.ts', 'framing that breaks after the head was sent on ends both connections and is recorded once'],
  ]),
  threat('F-6', 'Old, future and malformed request lines and fields', [['proxy/framing.test.ts', 'other versions and malformed request lines are refused']]),
  threat('F-7', 'More fields than a parser counts', [
    ['proxy/framing.test.ts', 'bounds on the head: fields, bytes and request target'],
    ['proxy/target-faults.test.ts', 'a target that answers with what is not HTTP/1.1'],
    ['package/node-floor.test.ts', 'the floor is exact'],
  ]),
  threat('F-8', 'HTTP/2 that cannot be said in HTTP/1.1', [
    ['proxy/http2-hostile.test.ts', 'streams that are no requests are refused, each alone, and nothing of them is sent on'],
    ['proxy/http2-hostile.test.ts', 'a body that is not as long as announced never looks whole to the target'],
  ]),
  threat('F-9', 'Games with Expect', [
    ['proxy/http1.test.ts', 'Expect: a refusal is the answer, and no 100 comes before it'],
    ['proxy/http1.test.ts', 'Expect: a target that never says 100 gets the body after a while, and the program is told to send it'],
  ]),
  threat('F-10', 'A target that splits, doubles or never ends its answer', [
    ['fuzz/hostile-origins.test.ts', 'each script ends in one sound answer or none, and the next request in its own'],
    ['fuzz/exchange.test.ts', 'damaged answers: the program sees one sound answer for each request, or a broken connection'],
    ['net/outbound-h2-hostile.test.ts', 'one answer is one answer: what breaks the rules of HTTP is malformed, or truncated once the head was passed on'],
  ]),
  threat('F-11', 'An answer that is cut off passes for a whole one', [
    ['proxy/target-faults.test.ts', 'a truncated answer ends in a broken connection, never in a whole response'],
    ['net/outbound-h2-hostile.test.ts', 'an answer that breaks off is never whole, wherever it breaks off'],
    ['flow/faults-target.test.ts', 'each wrong of a target ends in its fault within the bound, and the next request is answered'],
  ]),
  threat('F-12', 'A connection is used on after something went wrong on it', [
    ['proxy/framing.test.ts', 'of twenty requests on one connection, good and bad in any order, the target sees the good ones before the first bad one'],
    ['net/outbound-pooled.test.ts', 'bytes after the answer never become the next answer'],
  ]),

  // Tampering with the record, and denying
  threat('R-1', 'Access without a record: a flood, a collector that is away', [
    ['flow/faults.test.ts', 'the collector goes away: events wait, are counted, and past the bound credentials are refused'],
    ['flow/faults-collector.test.ts', 'whatever stands in the place of the collector, events wait, requests do not, and none is lost or doubled'],
    ['proxy/event.test.ts', 'under audit: required an intent that does not fit is refused; outcomes of admitted ones always fit'],
  ], inMemory),
  threat('R-2', 'Records are changed, removed or reordered', [
    ['collector/marks.test.ts', 'a gap holds the acknowledgement until it is filled'],
  ], 'Sequence numbers show what is missing; a chain of hashes comes with the log on disk.'),
  threat('R-3', 'Records delivered twice, or by another', [
    ['collector/kill.test.ts', 'killed at random moments under load, once leaving half a line: every event is in the file exactly once'],
    ['collector/run.test.ts', 'a proxy that speaks for another workload is refused: nothing of its batch is stored, the stream ends with a fault'],
    ['flow/faults-collector.test.ts', 'acknowledgements that lie drop nothing'],
    ['rpc/caller.test.ts', 'a certificate that is not a good SVID of the trust domain is refused, and why is said'],
  ]),
  threat('R-4', 'A pod that goes takes its records along', [
    ['proxy/event.test.ts', 'flush sends without delay, waits for the acknowledgement and says what was not stored'],
    ['flow/roles.test.ts', 'the roles as separate processes: started in any order, reloaded, drained'],
  ], inMemory),
  threat('R-5', 'Paths and hosts that break log lines', [
    ['ops/log-and-drain.test.ts', 'a log line is one JSON object with time, level, role and message, whatever was logged'],
    ['proxy/event/field.test.ts', 'whatever the value: never longer than the bound, the same when bounded again, and cut to what is well-formed'],
    ['ops/metrics.test.ts', 'label values cannot break out of the exposition format'],
  ]),
  threat('R-6', 'A clock that is set hides or reorders', [
    ['flow/clock.test.ts', 'events keep their order and their durations, and say what the clock said'],
    ['flow/clock.test.ts', 'the identity is renewed in time, and is never used past its end'],
    ['flow/clock.test.ts', 'a grant lives as long as it did'],
  ]),
  threat('R-7', 'Recording that is there and not switched on', [
    ['flow/main-job.test.ts', 'the collector holds an intent and an outcome for each, with policy, version, rule and grant'],
    ['flow/rotation.test.ts', 'requests in flight while SVIDs, grants, keys and tokens rotate all succeed'],
  ]),
  threat('R-8', 'Policy is changed or rolled back', [
    ['broker/run-reload.test.ts', 'a changed file is in force without a restart; a rejected one leaves the old in force, is counted and says every problem'],
  ], 'Who may write the broker’s files decides; they are not signed, and an older file is a configuration like any other. Its version is in every event.'),

  // Disclosure
  threat('D-1', 'Secrets in logs, errors, labels, events', [
    ['flow/canary.test.ts', 'no secret is said or written anywhere'],
    ['core/headers-and-secret.test.ts', 'a secret prints as [secret] everywhere'],
  ]),
  threat('D-2', 'Dumps, debuggers, environment and memory', [
    ['flow/hardening.test.ts', 'the roles as the image starts them: no debugger, no dump, and no secret in arguments, environment or open files'],
    ['flow/hardening.test.ts', 'a role that others could read does not start, whichever way it was asked for'],
    ['flow/hardening.test.ts', 'the words of NODE_OPTIONS are those that Node reads, quoted or not'],
    ['property/injector.test.ts', 'of what is injected, once or again, the laws hold'],
  ], 'Whoever is root on the node, or shares the process namespace and user, reads memory: the pod’s settings keep them apart.'),
  threat('D-3', 'The admin port, which the program can reach', [
    ['ops/admin.test.ts', 'the admin endpoint tells liveness, readiness with what is missing, and metrics; it changes nothing'],
    ['flow/canary.test.ts', 'no secret is said or written anywhere'],
  ]),
  threat('D-4', 'The interception authority is stolen, or trusted too widely', [
    ['proxy/interception.test.ts', 'a leaf for what is not permitted is never made, a name below a permitted one included'],
    ['proxy/interception.test.ts', 'the private key is in no file that programs read'],
    ['proxy/interception-state.test.ts', 'an authority that others may have read counts as known to them: it is made anew'],
    ['proxy/request-path.test.ts', 'the proxy own trust store does not hold its interception authority'],
  ], 'Java does not apply the constraints of an anchor.'),
  threat('D-5', 'Somebody stands in the place of the broker', [
    ['rpc/trust.test.ts', 'is not trusted and gets no evidence'],
    ['flow/faults-broker.test.ts', 'attestation: each wrong ends in its fault within the bound, and the next attempt is right'],
  ]),
  threat('D-6', 'Identity tokens: wrong, stale, half written, swapped', [
    ['flow/token-file.test.ts', 'a thousand swaps of the directory link, as kubelet makes them, under attempts that never stop: no failure, no old token'],
    ['flow/token-file.test.ts', 'is evidence_missing at once, nothing is sent, and a sound one heals it'],
    ['flow/clock.test.ts', 'a token is judged by the clock of the broker, a minute either way'],
    ['flow/faults.test.ts', 'and it heals when the token does'],
  ], 'A token that was read before a connection that takes long is shown up to ten seconds after it was replaced.'),
  threat('D-7', 'Errors that reveal policy or internals', [
    ['rpc/status.test.ts', 'every fault of the table crosses with its status, code, detail and decision, and without its cause'],
    ['net/fetch.test.ts', 'an error shows nothing of what was sent or received'],
  ], 'A denial names the rule, on purpose: whoever is denied is to know what to ask for.'),
  threat('D-8', 'Timing tells what is cached', [], 'A program can time its own grants, and learns only whether it has been at a target before; caches are never shared between workloads.'),

  // Elevation and identity
  threat('P-1', 'Other pods reach the listeners', [['settings/golden.test.ts', 'every line of a problem says where, and what to do']], 'Listeners are on loopback, and settings refuse others. The node can reach a pod’s loopback.'),
  threat('P-2', 'Another process of the pod uses the proxy', [], 'The pod is the identity: processes in it are not told apart.'),
  threat('P-3', 'Traffic goes around the proxy', [
    ['flow/transparent.test.ts', 'the proxy’s own user is not steered'],
    ['cli/steer.test.ts', 'neither IP version is steered when one of them fails, and what was steered before is again'],
    ['injector/decide.test.ts', 'a program that may change steering rules, or is the proxy’s user, is refused'],
  ], 'It gets no credential. Blocking it needs a NetworkPolicy; UDP and what rules leave out are not steered.'),
  threat('P-4', 'Grants of one workload reach another', [
    ['proxy/grant-cache.test.ts', 'each input of the decision has a place of its own in the cache'],
    ['proxy/request-path.test.ts', 'a grant for another destination is not used'],
    ['flow/faults-broker.test.ts', 'grants that lie are not used'],
  ]),
  threat('P-5', 'What was revoked goes on in open tunnels', [
    ['flow/main-job.test.ts', 'a change of policy takes effect at once, without a restart'],
    ['proxy/grant-cache.test.ts', 'a revoked grant is not used again, nor one whose fetch began before'],
    ['proxy/revocation.test.ts', 'a grant that is revoked while a body comes is not used: the request is'],
    ['proxy/broker-link.test.ts', 'a rule that one broker has removed is not enforced later'],
    ['broker/service.test.ts', 'when an attestor leaves the configuration those it verified are told at that moment'],
  ], 'An upgraded connection was judged when it was opened, and stays until it ends. So was a request that waits for one of a target’s connections.'),
  threat('P-6', 'Forged and odd JWTs', [['conformance/attestors.test.ts', 'each fault has its code, and its twin is accepted'],
    ['conformance/attestors.test.ts', 'what is unreadable or plainly not for us is refused without a call']]),
  threat('P-7', 'One agent acts in the name of another', [], 'Delegation (RFC 8693 act) is not built: the workload that asks is the one that is named.'),
  threat('P-8', 'Poisoned configuration', [
    ['settings/document.test.ts', 'hostile text of 100 KB is answered in time'],
    ['settings/property.test.ts', 'random values under our keys, and under keys that reach prototypes, are settings or problems'],
  ]),

  // Denial of service
  threat('S-1', 'Slow heads, bodies and readers', [
    ['long/slow.test.ts', 'slow connections beside ${perSecond} good requests a second'],
    ['proxy/overload.test.ts', 'half a head, a body that does not come and an answer that is not read make room too'],
  ]),
  threat('S-2', 'Header bombs', [
    ['proxy/framing.test.ts', 'bounds on the head: fields, bytes and request target'],
    ['proxy/http2-hostile.test.ts', 'header blocks that are too large, or grow when they are decoded, are refused'],
  ]),
  threat('S-3', 'Floods of HTTP/2 frames', [
    ['proxy/http2-hostile.test.ts', 'ends the connection; others are served, and little is made of it'],
    ['proxy/http2-hostile.test.ts', 'windows that overflow, and frames out of place, end the stream or the connection'],
  ]),
  threat('S-4', 'TLS: odd server names, unfinished handshakes, a storm of certificates', [
    ['proxy/client-hello.test.ts', 'whatever arrives, it neither throws nor waits beyond its bound, and more bytes never change an answer'],
    ['rpc/listener.test.ts', 'garbage, half handshakes and sudden ends harm nobody else'],
    ['proxy/interception.test.ts', 'a leaf for what is not permitted is never made, a name below a permitted one included'],
  ]),
  threat('S-5', 'Decompression bombs', [['proxy/echo.test.ts', 'a bomb of 10 GiB costs neither its memory nor its time']]),
  threat('S-6', 'Connections and descriptors run out; a name server or a target swallows', [
    ['proxy/sockets.test.ts', 'running out of descriptors refuses connections for as long as it lasts, and no longer'],
    ['proxy/overload.test.ts', 'when everybody waits for us, the next is answered 503 with Retry-After at once, and nobody else notices'],
    ['proxy/overload.test.ts', 'who asks for one thing at a time has its turn, however many things others ask for at once'],
    ['proxy/killed.test.ts', 'a program that is killed while an answer waits for it is gone soon after'],
    ['net/dns.test.ts', 'names that no target names leave room for those that one does, however silent the name server is'],
  ]),
  threat('S-7', 'Records fill memory', [
    ['proxy/event.test.ts', 'when it is full, refusals and passes are dropped and counted; one loss record says how many, before the next event that fits'],
  ]),
  threat('S-8', 'The event loop is blocked', [
    ['core/needle.test.ts', 'work is linear in what is searched, whoever sends it and however it is cut'],
    ['settings/document.test.ts', 'hostile text of 100 KB is answered in time'],
  ]),
  threat('S-9', 'An error that nobody catches', [
    ['proxy/sockets.test.ts', 'no socket stays behind, on either hop, after some hundred exchanges of every kind, failures included'],
    ['flow/run.test.ts', 'should the proxy crash, the command is told to end'],
  ], 'A bug ends the process, and its supervisor starts it again; injected errors at every await are not tried yet.'),
  threat('S-10', 'Messages that are larger than memory', [
    ['rpc/broker.test.ts', 'messages past the limit are refused, in both directions'],
    ['proxy/upgrade.test.ts', 'an upgraded connection is slowed by whoever does not read, and little is kept'],
  ]),
  threat('S-11', 'All proxies come back at once', [
    ['proxy/grant-cache.test.ts', 'a thousand cold requests for one target make one fetch, a warm one none'],
    ['rpc/renewal.test.ts', 'pauses double with jitter and keep within the limits'],
    ['flow/clock.test.ts', 'after a sleep of the machine the identity is renewed at once, without waiting for a timer'],
  ]),

  // Supply chain
  threat('C', 'Packages, images and the way they are made', [
    ['package/bundle.test.ts', 'what runs beside a workload is small: few packages, no vendor SDK, none of the broker'],
    ['package/lockfile.test.ts', 'a name that tells no platform, or a range, is refused rather than guessed'],
    ['package/bundle.test.ts', 'the image runs as nobody, without a shell and without anything secret'],
  ], 'Signed images and a bill of materials come with the first published release.'),
];

/** Every number there is. */
export const threatIds: readonly string[] = [
  ...(
    [
      ['E', 20],
      ['F', 12],
      ['R', 8],
      ['D', 8],
      ['P', 8],
      ['S', 11],
    ] as const
  ).flatMap(([letter, count]) => Array.from({ length: count }, (_, i) => `${letter}-${i + 1}`)),
  'C',
];
