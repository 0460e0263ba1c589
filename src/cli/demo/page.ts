/** The front door's status page: plain HTML made at every visit, with nothing loaded from anywhere. */
import { createHash } from 'node:crypto';
import { get } from 'node:http';
import { limits } from '../../core/limits.ts';
import type { TourStep } from './tour.ts';

export interface Backend {
  readonly host: string;
  readonly port: number;
}

const style = `
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { text-align: left; padding: .25rem 1.5rem .25rem 0; vertical-align: top }
pre { background: #f3f3f0; padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap }
.ready { color: #116329 } .waiting { color: #9a3412 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616 } pre { background: #222 } a { color: #8ab4f8 } .ready { color: #7ee787 } .waiting { color: #ffa657 } }
`;

/** Only this style sheet, by its hash: no script, no image, no frame, no form. */
export const pagePolicy = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;

const escaped = (text: string): string => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

/** What /readyz of a role says: '' when it is ready. */
export const readinessOf = ({ host, port }: Backend): Promise<string> =>
  new Promise((resolve) => {
    const request = get({ host, port, path: '/readyz', timeout: limits.outboundTimeoutMs, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part: string) => {
        text = (text + part).slice(0, 2_000);
      });
      response.on('end', () => resolve(response.statusCode === 200 ? '' : text.trim() || 'not ready'));
      response.on('error', () => resolve('its answer broke off'));
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => resolve('it does not answer'));
  });

const roleRow = (role: string, waitingFor: string): string => {
  const state = waitingFor === '' ? '<span class="ready">ready</span>' : `<span class="waiting">${escaped(waitingFor)}</span>`;
  const links = ['metrics', 'readyz', 'livez'].map((what) => `<a href="/${role}/${what}">${what}</a>`).join(' ');
  return `<tr><th>${escaped(role)}</th><td>${state}</td><td>${links}</td></tr>`;
};

export interface PageOptions {
  readonly backends: Readonly<Record<string, Backend>>;
  readonly steps: readonly TourStep[];
  /** Where things are, in words. */
  readonly places: Readonly<Record<string, string>>;
}

export const statusPage = async ({ backends, steps, places }: PageOptions): Promise<string> => {
  const rows = await Promise.all(Object.entries(backends).map(async ([role, backend]) => roleRow(role, await readinessOf(backend))));
  const where = Object.entries(places).map(([what, place]) => `<tr><th>${escaped(what)}</th><td>${escaped(place)}</td></tr>`);
  const tour = steps.map(({ what, command }) => `<p>${escaped(what)}</p><pre>${escaped(command)}</pre>`);
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Outrider demo</title>
<style>${style}</style></head><body>
<h1>Outrider demo</h1>
<table>${rows.join('')}</table>
<h2>Try</h2>${tour.join('')}
<h2>Places</h2><table>${where.join('')}</table>
</body></html>
`;
};
