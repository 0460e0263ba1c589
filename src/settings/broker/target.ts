/** How an operator writes a target. Where a credential may be written into a request is in placement.ts. */
import { echoTreatments, pathReadings, targetProtocols } from '../../core/target.ts';
import { host, port } from '../address.ts';
import type { TargetSettings } from '../broker.ts';
import { keys, list, oneOf, oneOfNumerals, scalar } from '../grammar.ts';
import { filePath, name } from '../text.ts';
import { placement } from './placement.ts';

/** Long enough never to stand anywhere by chance, and of characters that no place has to encode. */
const placeholder = scalar(
  { what: 'a placeholder', write: '8 to 128 letters, digits, "_" and "-", such as OUTRIDER_PLACEHOLDER' },
  (text) => (/^[A-Za-z0-9_-]{8,128}$/.test(text) ? text : undefined),
);

const credential = keys({ provider: name, placement }, '{provider: NAME, placement: {kind: bearer}}');

export const target = keys(
  {
    name,
    hosts: list(host, { write: '[api.example.com]', min: 1 }),
    ports: list(port, { write: '[443]', min: 1 }).default([443]),
    cleartext: oneOf(['allowed', 'refused']).default('refused'),
    caFile: filePath('/etc/outrider/target-ca.pem').optional(),
    protocol: oneOf(targetProtocols, { isGuessed: false }).default('auto'),
    tlsVersionMin: oneOfNumerals(['1.2', '1.3']).default('1.2'),
    echo: oneOf(echoTreatments).default('redact'),
    paths: oneOf(pathReadings).default('canonical'),
    placeholder: placeholder.default(''),
    credentials: list(credential, { write: '[{provider: NAME, placement: {kind: bearer}}]', min: 1 }),
  },
  '{name: orders, hosts: [api.example.com], credentials: [{provider: NAME, placement: {kind: bearer}}]}',
).transform(({ caFile, tlsVersionMin, ...written }): TargetSettings => ({ ...written, caFile, tlsVersionMin: `TLSv${tlsVersionMin}` }));
