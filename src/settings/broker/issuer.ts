/** How an operator writes the broker's token issuer. */
import { limits } from '../../core/limits.ts';
import { listenAddress, url } from '../address.ts';
import type { IssuerSettings } from '../broker.ts';
import { duration, durationText } from '../duration.ts';
import { keys, oneOf } from '../grammar.ts';
import { filePath } from '../text.ts';

const hourMs = 3_600_000;

/** A key stays published until every token signed with it has expired, by a clock that is behind as well. */
const overlapMinMs = limits.mintedTokenLifetimeMaxMs + limits.clockSkewMs;

const tls = keys(
  { certFile: filePath('/etc/outrider/tls/tls.crt'), keyFile: filePath('/etc/outrider/tls/tls.key') },
  '{certFile: PATH, keyFile: PATH}',
);

export const issuer = keys(
  {
    url: url({ write: 'https://broker.outrider.svc:15003', strict: true }),
    listen: listenAddress,
    algorithm: oneOf(['ES256', 'RS256']).default('ES256'),
    keyLifetime: duration({ minMs: overlapMinMs, maxMs: 365 * 24 * hourMs, write: '24h' }).default(24 * hourMs),
    keyOverlap: duration({ minMs: overlapMinMs, maxMs: 30 * 24 * hourMs, write: '1h' }).default(hourMs),
    tls: tls.optional(),
  },
  '{url: https://broker.outrider.svc:15003, listen: 0.0.0.0:15003}',
)
  .superRefine(({ keyLifetime, keyOverlap }, context) => {
    if (keyOverlap < keyLifetime) return;
    const message = `is not less than keyLifetime (${durationText(keyLifetime)}), write a shorter one, or a longer keyLifetime`;
    context.addIssue({ code: 'custom', path: ['keyOverlap'], message });
  })
  .transform(
    ({ keyLifetime, keyOverlap, tls, ...written }): IssuerSettings => ({
      ...written,
      keyLifetimeMs: keyLifetime,
      keyOverlapMs: keyOverlap,
      tls,
    }),
  );
