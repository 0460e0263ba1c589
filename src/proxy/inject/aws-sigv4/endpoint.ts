/**
 * Which AWS service and region a host name stands for, as its signature must name them: the signing name is not always the endpoint's.
 * Pure; a host that is not AWS' own yields nothing, and the target's placement then has to say.
 * https://docs.aws.amazon.com/general/latest/gr/rande.html; checked against the endpoint tests that AWS publishes with its SDKs.
 */
export interface AwsEndpoint {
  readonly service: string;
  /** `*` where version 4a signs for every region; undefined where the host does not say (transfer acceleration). */
  readonly region: string | undefined;
}

/** Domains of AWS, longest first, and the region that signs for what has none in its name there. */
const domains: readonly (readonly [suffix: string, globalRegion: string])[] = [
  ['.api.amazonwebservices.com.cn', 'cn-northwest-1'],
  ['.on.amazonwebservices.com.cn', 'cn-northwest-1'],
  ['.amazonaws.com.cn', 'cn-northwest-1'],
  ['.us-gov.amazonaws.com', 'us-gov-west-1'],
  ['.us-gov.api.aws', 'us-gov-west-1'],
  ['.amazonaws-us-gov.com', 'us-gov-west-1'],
  ['.amazonaws.cn', 'cn-northwest-1'],
  ['.amazonaws.com', 'us-east-1'],
  ['.api.amazonwebservices.eu', 'eusc-de-east-1'],
  ['.amazonaws.eu', 'eusc-de-east-1'],
  ['.api.aws.ic.gov', 'us-iso-east-1'],
  ['.c2s.ic.gov', 'us-iso-east-1'],
  ['.api.aws.scloud', 'us-isob-east-1'],
  ['.sc2s.sgov.gov', 'us-isob-east-1'],
  ['.api.cloud-aws.adc-e.uk', 'eu-isoe-west-1'],
  ['.cloud.adc-e.uk', 'eu-isoe-west-1'],
  ['.api.aws.hci.ic.gov', 'us-isof-south-1'],
  ['.csp.hci.ic.gov', 'us-isof-south-1'],
  ['.api.aws', 'us-east-1'],
  ['.on.aws', 'us-east-1'],
];

/** Global services that another region signs for than their domain's. */
const globalRegions: Readonly<Record<string, string>> = {
  globalaccelerator: 'us-west-2',
  networkmanager: 'us-west-2',
  chatbot: 'us-west-2',
  'cloudfront-keyvaluestore': '*',
};

/** Endpoint to signing name, where they differ. */
const signingNames: ReadonlyMap<string, string> = new Map(
  Object.entries({
    aos: 'es',
    appconfigdata: 'appconfig',
    appstream2: 'appstream',
    'appsync-api': 'appsync',
    'appsync-realtime-api': 'appsync',
    'arc-recovery-control-config': 'route53-recovery-control-config',
    'arc-region-switch-control-plane': 'arc-region-switch',
    'bedrock-agent': 'bedrock',
    'bedrock-agent-runtime': 'bedrock',
    'bedrock-agentcore-control': 'bedrock-agentcore',
    'bedrock-data-automation': 'bedrock',
    'bedrock-data-automation-runtime': 'bedrock',
    'bedrock-runtime': 'bedrock',
    'cassandra-streams': 'cassandra',
    'cloudfront-kvs': 'cloudfront-keyvaluestore',
    cloudhsmv2: 'cloudhsm',
    cloudsearchdomain: 'cloudsearch',
    'contact-lens': 'connect',
    'control-kinesis': 'kinesis',
    'data-kinesis': 'kinesis',
    'data-signer': 'signer',
    ddb: 'dynamodb',
    efs: 'elasticfilesystem',
    email: 'ses',
    'email-smtp': 'ses',
    forecastquery: 'forecast',
    'identity-chime': 'chime',
    importexport: 'IngestionService',
    iot: 'iotdata',
    'iot-tunneling': 'IoTSecuredTunneling',
    ivsrealtime: 'ivs',
    'kafka-api': 'kafka',
    'lambda-url': 'lambda',
    'mail-manager': 'ses',
    'media-pipelines-chime': 'chime',
    'meetings-chime': 'chime',
    'memory-db': 'memorydb',
    'messaging-chime': 'chime',
    'migrationhub-config': 'mgh',
    'models-v2-lex': 'lex',
    'mturk-requester-sandbox': 'mturk-requester',
    oidc: 'sso-oauth',
    'personalize-events': 'personalize',
    'personalize-runtime': 'personalize',
    pinpoint: 'mobiletargeting',
    queue: 'sqs',
    'runtime-v2-lex': 'lex',
    's3-control': 's3',
    'servicecatalog-appregistry': 'servicecatalog',
    'streams-dynamodb': 'dynamodb',
    'timestream-ingest': 'timestream',
    'timestream-query': 'timestream',
    'voice-chime': 'chime',
  }),
);

/** The same for names of two labels. */
const signingNamesOfTwo: ReadonlyMap<string, string> = new Map(
  Object.entries({
    'participant.connect': 'execute-api',
    'data.iot': 'iotdata',
    'data-ats.iot': 'iotdata',
    'data.jobs.iot': 'iot-jobs-data',
    'jobs.iot': 'iot-jobs-data',
    'data.iotevents': 'ioteventsdata',
    'tunneling.iot': 'IoTSecuredTunneling',
    'greengrass-ats.iot': 'greengrass',
    'maps.geo': 'geo-maps',
    'places.geo': 'geo-places',
    'routes.geo': 'geo-routes',
    'portal.sso': 'awsssoportal',
    'sms-voice.pinpoint': 'sms-voice',
  }),
);

const regionPattern = /^[a-z]{2,4}(?:-[a-z]+){1,3}-[0-9]{1,2}$/;

/** The endpoint that a canonical host is, or undefined. */
export const endpointOf = (host: string): AwsEndpoint | undefined => {
  const domain = domains.find(([suffix]) => host.endsWith(suffix));
  if (!domain) return undefined;
  const [suffix, globalRegion] = domain;
  const labels = host.slice(0, -suffix.length).split('.');
  // The endpoint of a service inside a VPC: `vpce-… .service.region.vpce`.
  if (labels.at(-1) === 'vpce') labels.pop();
  return s3EndpointOf(labels, globalRegion) ?? serviceEndpointOf(labels, globalRegion);
};

/** What stands between the service and the domain without being a region. */
const isModifier = (label: string): boolean => label === 'dualstack' || label === 'fips' || label === 'global';

/** Forms of S3, all with anything before them: buckets have dots. */
const s3EndpointOf = (all: readonly string[], globalRegion: string): AwsEndpoint | undefined => {
  const labels = [...all];
  let region: string | undefined;
  if (regionPattern.test(labels.at(-1) as string)) region = labels.pop();
  while (isModifier(labels.at(-1) ?? '')) labels.pop();
  const last = labels.at(-1) ?? '';
  const legacy = /^s3-(?:fips-)?([a-z0-9-]+)$/.exec(last)?.[1];
  if (region === undefined && legacy !== undefined && regionPattern.test(legacy)) return { service: 's3', region: legacy };
  if (last === 's3-global') return { service: 's3', region: '*' };
  if (last === 's3-accelerate') return { service: 's3', region };
  if (/^s3(?:-fips|-external-1|-accesspoint|-accesspoint-fips|-control|-control-fips)?$/.test(last)) {
    return { service: 's3', region: region ?? globalRegion };
  }
  if (region === undefined) return undefined;
  if (/^s3-outposts(?:-fips)?$/.test(last)) return { service: 's3-outposts', region };
  if (/^s3-object-lambda(?:-fips)?$/.test(last)) return { service: 's3-object-lambda', region };
  // Directory buckets: the label names the zone, and `control` what is not about one zone.
  return last.startsWith('s3express-') ? { service: 's3express', region } : undefined;
};

const serviceEndpointOf = (all: readonly string[], globalRegion: string): AwsEndpoint | undefined => {
  const labels = all.filter((label) => !isModifier(label));
  // Mostly `service.region`, sometimes `region.service` (es, aoss, cloudsearch, queue); the name of a domain or an API goes before.
  const at = labels.findLastIndex((label) => regionPattern.test(label));
  const isLast = at === labels.length - 1;
  if (at >= 0 && at < labels.length - 2) return undefined;
  const region = labels[at];
  const named = at < 0 ? labels : isLast ? labels.slice(0, at) : labels.slice(at + 1);
  const service = signingNameOf(named.map(withoutFips));
  if (service === undefined) return undefined;
  // Global endpoints of EventBridge and SES: `….endpoint.events`, `….endpoints.email`.
  if (region === undefined && /^endpoints?$/.test(labels.at(-2) ?? '')) return { service, region: '*' };
  return { service, region: region ?? globalRegions[service] ?? globalRegion };
};

const withoutFips = (label: string): string => label.replace(/^fips-|-fips$/, '');

const servicePattern = /^[a-z0-9][a-z0-9-]*$/;

const signingNameOf = (labels: readonly string[]): string | undefined => {
  const last = labels.at(-1) ?? '';
  const beforeLast = labels.at(-2) ?? '';
  if (!servicePattern.test(last)) return undefined;
  const ofTwo = signingNamesOfTwo.get(labels.slice(-3).join('.')) ?? signingNamesOfTwo.get(`${beforeLast}.${last}`);
  if (ofTwo !== undefined) return ofTwo;
  if (last === 'marketplace' || last.endsWith('-marketplace')) return 'aws-marketplace';
  // The control plane of AWS IoT: `iot.region`; with an account's own name before it, its devices' data.
  if (last === 'iot' && labels.length === 1) return 'iot';
  return signingNames.get(last) ?? last;
};
