/** The files that a broker's configuration names and the broker reads. */
import type { BrokerSettings, ProviderSettings } from '../broker.ts';
import type { NamedFile } from '../missing-files.ts';

export const brokerFiles = ({ sharedKeys, issuer, attestors, targets, providers }: BrokerSettings): NamedFile[] => [
  ['sharedKeys: caFile', sharedKeys?.caFile],
  ['sharedKeys: tokenFile', sharedKeys?.tokenFile],
  ['issuer: tls.certFile', issuer.tls?.certFile],
  ['issuer: tls.keyFile', issuer.tls?.keyFile],
  ...attestors.flatMap(({ name, caFile, authorizationTokenFile }): NamedFile[] => [
    [`attestor ${name}: caFile`, caFile],
    [`attestor ${name}: authorizationTokenFile`, authorizationTokenFile],
  ]),
  ...providers.flatMap(filesOf),
  ...targets.map(({ name, caFile }): NamedFile => [`target ${name}: caFile`, caFile]),
];

const filesOf = (provider: ProviderSettings): NamedFile[] => {
  if (provider.kind === 'jwt' || provider.kind === 'x509') return [];
  if (provider.kind === 'static_file') return [[`provider ${provider.name}: file`, provider.file]];
  const { name, caFile, clientAuthentication: by } = provider;
  const [key, source] = by.method === 'private_key_jwt' ? ['key', by.key] : ['clientSecret', by.secret];
  return [
    [`provider ${name}: caFile`, caFile],
    [`provider ${name}: clientAuthentication.${key}`, 'file' in source ? source.file : undefined],
  ];
};
