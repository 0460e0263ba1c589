import { readFileSync } from 'node:fs';
import t from 'tap';
import type { Kube } from './api.ts';
import { clustersArePossible, startCluster } from './cluster.ts';
import { issuer, within } from './control-plane.ts';

t.setTimeout(180_000);

/** What the other files of this directory rest on: the stand-in does with a spec what a kubelet does. */
t.test('a stand-in for a node', async (t) => {
  if (!clustersArePossible(t)) return;
  const { api, node } = await startCluster(t);
  const pods = '/api/v1/namespaces/default/pods';
  const shell = (...lines: readonly string[]): object => ({ image: 'app', command: ['/bin/sh', '-c', lines.join('\n')] });
  const create = (name: string, spec: object): Promise<Kube> => api.create(pods, { metadata: { name, labels: { app: name } }, spec });
  const phase = (name: string, wanted: string): Promise<Kube> =>
    within(`pod ${name} to be ${wanted}`, 20_000, async () => {
      const pod = await api.get(`${pods}/${name}`);
      return pod?.['status']?.phase === wanted && pod;
    });
  const ready = (name: string): Promise<Kube> =>
    within(`pod ${name} to be ready`, 20_000, async () => {
      const pod = await api.get(`${pods}/${name}`);
      const conditions = (pod?.['status']?.conditions ?? []) as { type: string; status: string }[];
      return conditions.some(({ type, status }) => type === 'Ready' && status === 'True') && pod;
    });
  const gone = (name: string): Promise<boolean> =>
    within(`pod ${name} to be gone`, 20_000, async () => (await api.get(`${pods}/${name}`)) === undefined);

  t.test('user, capabilities, privileges, read-only root, environment and volumes are those of the spec', async (t) => {
    await api.create('/api/v1/namespaces/default/configmaps', { metadata: { name: 'settings' }, data: { one: 'first', two: 'second' } });
    await create('spec', {
      restartPolicy: 'Never',
      securityContext: { runAsUser: 1234, runAsGroup: 2345, fsGroup: 3456 },
      containers: [
        {
          name: 'main',
          ...shell(
            'id -u; id -g; id -G',
            "grep -E 'CapBnd|CapEff|NoNewPrivs' /proc/self/status | tr -d '\\t'",
            'touch /x 2>/dev/null || echo read-only root',
            'echo "$A $B $NAME"',
            'cat /settings/renamed; echo',
            'touch /settings/x 2>/dev/null || echo read-only volume',
            'echo shared > /scratch/file && cat /scratch/file',
            'ls /proc | grep -c "^[0-9]"',
            'ls /tmp | wc -l; ls /dev/shm | wc -l',
            'cut -d. -f2 /var/run/secrets/kubernetes.io/serviceaccount/token > /scratch/token',
          ),
          env: [
            { name: 'A', value: 'a' },
            { name: 'B', value: '$(A)-$$(A)-$(C)' },
            { name: 'NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
          ],
          securityContext: {
            readOnlyRootFilesystem: true,
            allowPrivilegeEscalation: false,
            capabilities: { drop: ['ALL'], add: ['NET_ADMIN'] },
          },
          volumeMounts: [
            { name: 'settings', mountPath: '/settings', readOnly: true },
            { name: 'scratch', mountPath: '/scratch' },
          ],
        },
      ],
      volumes: [
        { name: 'settings', configMap: { name: 'settings', items: [{ key: 'two', path: 'renamed' }] } },
        { name: 'scratch', emptyDir: { medium: 'Memory' } },
      ],
    });
    const pod = await phase('spec', 'Succeeded');
    const lines = node.log('default', 'spec', 'main').trimEnd().split('\n');
    t.strictSame(lines.slice(0, -3), [
      '1234',
      '2345',
      '2345 3456',
      'CapEff:0000000000000000',
      'CapBnd:0000000000001000',
      'NoNewPrivs:1',
      'read-only root',
      'a a-$(A)-$(C) spec',
      'second',
      'read-only volume',
      'shared',
    ]);
    t.ok(Number(lines.at(-3)) <= 4, 'it sees its own processes alone');
    t.strictSame(lines.slice(-2), ['0', '0'], 'and nothing of this machine’s temporary files');
    t.match(pod['status'].containerStatuses[0], { name: 'main', state: { terminated: { exitCode: 0 } } });
  });

  t.test('a token is from TokenRequest and bound to the pod; it goes with the pod', async (t) => {
    await create('bound', {
      terminationGracePeriodSeconds: 1,
      containers: [
        {
          name: 'main',
          ...shell('cat /token/t > /out/t', 'exec sleep 1000'),
          volumeMounts: [
            { name: 'token', mountPath: '/token' },
            { name: 'out', mountPath: '/out' },
          ],
        },
      ],
      volumes: [
        { name: 'token', projected: { sources: [{ serviceAccountToken: { path: 't', audience: 'outrider', expirationSeconds: 600 } }] } },
        { name: 'out', emptyDir: {} },
      ],
    });
    const pod = await ready('bound');
    const token = readFileSync(`${node.running('default', 'bound')?.volume('token')}/t`, 'utf8');
    const claims = JSON.parse(Buffer.from(token.split('.')[1] as string, 'base64url').toString()) as Kube;
    t.match(claims, { iss: issuer, aud: ['outrider'], 'kubernetes.io': { pod: { name: 'bound', uid: pod.metadata.uid } } });
    const review = async (): Promise<unknown> =>
      (await api.create('/apis/authentication.k8s.io/v1/tokenreviews', { spec: { token, audiences: ['outrider'] } }))['status']
        .authenticated;
    t.equal(await review(), true);
    await api.remove(`${pods}/bound`);
    await gone('bound');
    await within('the token to be refused', 20_000, async () => (await review()) !== true);
  });

  t.test('init containers run in order, a sidecar before them and until the app has ended; a Job is complete then', async (t) => {
    const volumeMounts = [{ name: 'log', mountPath: '/log' }];
    const say = (word: string): string => `echo ${word} >> /log/order`;
    await api.create('/apis/batch/v1/namespaces/default/jobs', {
      metadata: { name: 'job' },
      spec: {
        template: {
          spec: {
            restartPolicy: 'Never',
            initContainers: [
              {
                name: 'sidecar',
                restartPolicy: 'Always',
                ...shell(
                  `trap '${say('sidecar-ended')}; cat /log/order; exit 0' TERM`,
                  say('sidecar'),
                  'cd /log; python3 -m http.server 8080 & ',
                  'while :; do wait; done',
                ),
                startupProbe: { httpGet: { path: '/order', port: 8080 }, periodSeconds: 1, failureThreshold: 20 },
                volumeMounts,
              },
              { name: 'init', ...shell(say('init')), volumeMounts },
            ],
            containers: [{ name: 'app', ...shell(say('app')), volumeMounts }],
            volumes: [{ name: 'log', emptyDir: {} }],
          },
        },
      },
    });
    await within(
      'the job to be complete',
      30_000,
      async () => (await api.get('/apis/batch/v1/namespaces/default/jobs/job'))?.['status'].succeeded === 1,
    );
    const [pod] = await api.list(`${pods}?labelSelector=job-name%3Djob`);
    t.match(node.log('default', pod?.metadata.name as string, 'sidecar'), /^sidecar\ninit\napp\nsidecar-ended$/m);
  });

  t.test('a Deployment gets ready, its Service has a name in every pod, and a container that fails is started again', async (t) => {
    await api.create('/apis/apps/v1/namespaces/default/deployments', {
      metadata: { name: 'web' },
      spec: {
        replicas: 2,
        selector: { matchLabels: { app: 'web' } },
        template: {
          metadata: { labels: { app: 'web' } },
          spec: {
            terminationGracePeriodSeconds: 1,
            containers: [
              {
                name: 'web',
                ...shell(
                  'echo start',
                  '[ -e /state/tried ] || { touch /state/tried; exit 3; }',
                  'cd /state; exec python3 -m http.server 8000',
                ),
                ports: [{ name: 'http', containerPort: 8000 }],
                readinessProbe: { httpGet: { path: '/tried', port: 'http' } },
                volumeMounts: [{ name: 'state', mountPath: '/state' }],
              },
            ],
            volumes: [{ name: 'state', emptyDir: {} }],
          },
        },
      },
    });
    await api.create('/api/v1/namespaces/default/services', {
      metadata: { name: 'web' },
      spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 'http' }] },
    });
    await within(
      'the deployment to be ready',
      30_000,
      async () => (await api.get('/apis/apps/v1/namespaces/default/deployments/web'))?.['status'].readyReplicas === 2,
    );
    for (const pod of await api.list(`${pods}?labelSelector=app%3Dweb`)) t.equal(pod['status'].containerStatuses[0].restartCount, 1);
    await create('caller', {
      restartPolicy: 'OnFailure',
      containers: [
        { name: 'main', ...shell('curl --silent --fail --output /dev/null --write-out "%{http_code}" http://web.default.svc/tried') },
      ],
    });
    await phase('caller', 'Succeeded');
    t.match(node.log('default', 'caller', 'main'), /200$/);
  });

  t.test('a ConfigMap that changes is seen in the pod, whole', async (t) => {
    await create('follower', {
      restartPolicy: 'Never',
      containers: [
        {
          name: 'main',
          ...shell('until grep -q later /settings/one; do sleep 0.1; done; cat /settings/one'),
          volumeMounts: [{ name: 'settings', mountPath: '/settings' }],
        },
      ],
      volumes: [{ name: 'settings', configMap: { name: 'settings' } }],
    });
    await ready('follower');
    await api.merge('/api/v1/namespaces/default/configmaps/settings', { data: { one: 'later' } });
    await phase('follower', 'Succeeded');
    t.equal(node.log('default', 'follower', 'main'), 'later');
  });

  t.test('a pod reaches the API server by its name and certificate, and is known by its token', async (t) => {
    const account = '/var/run/secrets/kubernetes.io/serviceaccount';
    const request = `curl --silent --cacert ${account}/ca.crt --header "Authorization: Bearer $(cat ${account}/token)"`;
    await create('asker', {
      restartPolicy: 'Never',
      containers: [
        {
          name: 'main',
          ...shell(
            `${request} https://kubernetes.default.svc/api/v1/namespaces/default/pods/asker`,
            `${request} --fail --output /dev/null "https://$KUBERNETES_SERVICE_HOST/version" && echo by address`,
          ),
        },
      ],
    });
    await phase('asker', 'Succeeded');
    const said = node.log('default', 'asker', 'main');
    t.match(said, /User \\"system:serviceaccount:default:default\\" cannot get resource/);
    t.match(said, /by address$/m);
  });
});
