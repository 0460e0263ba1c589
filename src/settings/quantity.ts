/** How much CPU or memory an operator gives a container, as Kubernetes writes it. */
import * as z from 'zod';
import { amountOf, type Resource } from '../core/quantity.ts';

const examples: Readonly<Record<Resource, string>> = { cpu: '"500m" or 2', memory: '384Mi or 1Gi' };

/** Yields the text: a YAML number is as good. */
export const quantity = (resource: Resource) => {
  const error = `is not an amount of ${resource}, write for example ${examples[resource]}`;
  return z
    .union([z.string(), z.number()], {
      error: ({ input }) => (input === undefined ? `is missing, write for example ${examples[resource]}` : error),
    })
    .meta({ description: `${resource}, such as ${examples[resource]}` })
    .transform((written, context): string => {
      const text = String(written);
      if (amountOf(resource, text) === undefined) context.addIssue({ code: 'custom', message: error });
      return text;
    });
};
