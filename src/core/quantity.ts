/**
 * Kubernetes quantities that are compared: how much CPU and memory a container may have. Of their grammar, what people write: a decimal
 * number and a suffix, without signs, exponents and "n" or "u".
 * https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
 */
const decimal = { '': 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12 } as const;
const binary = { Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40 } as const;
const memoryFactor: Readonly<Record<string, number>> = { ...decimal, ...binary };

/** Millicores: "250m", "2", "0.5". Undefined when it is none, is nothing, or has a fraction of a millicore. */
export const millicoresOf = (text: string): number | undefined => {
  const match = /^(\d{1,9}(?:\.\d{1,9})?)(m?)$/.exec(text);
  return match ? positive(Number(match[1]) * (match[2] === 'm' ? 1 : 1_000)) : undefined;
};

/** Bytes: "384Mi", "1Gi", "500M". Undefined when it is none, is nothing, or has a fraction of a byte. */
export const bytesOf = (text: string): number | undefined => {
  const match = /^(\d{1,15}(?:\.\d{1,9})?)(k|M|G|T|Ki|Mi|Gi|Ti)?$/.exec(text);
  return match ? positive(Number(match[1]) * (memoryFactor[match[2] ?? ''] as number)) : undefined;
};

/** A product such as 0.29 * 1000 is off by the last bits of a double; a real fraction is off by more. */
const positive = (amount: number): number | undefined => {
  const whole = Math.round(amount);
  return whole > 0 && Number.isSafeInteger(whole) && Math.abs(amount - whole) < 1e-6 ? whole : undefined;
};

export const resources = ['cpu', 'memory'] as const;
export type Resource = (typeof resources)[number];

/** In the smallest unit of its kind, to be compared with others of the same kind. */
export const amountOf = (resource: Resource, text: string): number | undefined => (resource === 'cpu' ? millicoresOf(text) : bytesOf(text));
