/** What the injector puts into pods is called these, and is found at these places. */
export const labels = { inject: 'outrider.dev/inject', injected: 'outrider.dev/injected' } as const;

export const annotationPrefix = 'outrider.dev/';
/** Written by the injector: what it did differently from what the pod asked for, a sentence a line. */
export const notesAnnotation = `${annotationPrefix}notes`;

export const containers = { proxy: 'outrider-proxy', steer: 'outrider-steer' } as const;

export const volumes = {
  token: 'outrider-token',
  trust: 'outrider-broker-ca',
  public: 'outrider-public',
  private: 'outrider-private',
  log: 'outrider-log',
} as const;

export const paths = {
  token: '/var/run/secrets/outrider',
  trust: '/etc/outrider/trust',
  public: '/run/outrider/public',
  private: '/run/outrider/private',
  log: '/var/lib/outrider',
  /** Where Kubernetes itself mounts the token of the pod's service account. */
  apiAccess: '/var/run/secrets/kubernetes.io/serviceaccount',
} as const;

export const bundleFile = `${paths.public}/ca-bundle.pem`;
export const trustStoreFile = `${paths.public}/trust-store.p12`;

export const ports = { proxy: 15_001, admin: 15_007, transparent: 15_008 } as const;
/** Whether a program would take one of the sidecar's ports. */
export const isTaken = (port: unknown): boolean => Object.values<unknown>(ports).includes(port);

/** Beginning of the names of volumes and containers that are ours. */
export const ownPrefix = 'outrider-';
