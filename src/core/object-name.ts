/** What Kubernetes lets things be called (RFC 1123): namespaces and containers a label, most objects a subdomain. */
const label = '[a-z0-9](?:[-a-z0-9]*[a-z0-9])?';
const labelPattern = new RegExp(`^${label}$`);
const subdomainPattern = new RegExp(`^${label}(?:\\.${label})*$`);

export const isDnsLabel = (name: string): boolean => name.length <= 63 && labelPattern.test(name);
export const isDnsSubdomain = (name: string): boolean => name.length <= 253 && subdomainPattern.test(name);
